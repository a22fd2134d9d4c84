// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "bench/object_cache/channel.h"
#include "bench/object_cache/scenario.h"

namespace larder::bench {

// How to come by the process of a peer.
struct peer_kind {
  std::string name;
  // What malloc is then of: the first of these that is found is preloaded. Empty: the peer is no malloc.
  std::vector<std::string> libraries;
  // Another program, beside this one, that has the peer linked in.
  std::string program;
};

// A process of its own for a peer. It lives until the peer is destroyed.
class peer_process {
 public:
  // Starts it; if that fails, `problem` says why.
  explicit peer_process(const peer_kind& kind);
  ~peer_process();
  peer_process(const peer_process&) = delete;
  peer_process& operator=(const peer_process&) = delete;

  answer ask(const request& asked);
  const std::string& problem() const { return problem_; }
  // What the process says that it measures.
  const std::string& introduction() const { return introduction_; }

 private:
  void start(const std::string& program, const std::string& name, const std::string& preloaded,
             const std::string& malloc_of);
  std::string how_it_ended();

  channel to_peer_;
  pid_t process_ = -1;
  std::string introduction_;
  std::string problem_;
};

}  // namespace larder::bench
