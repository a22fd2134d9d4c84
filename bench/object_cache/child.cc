// SPDX-License-Identifier: Apache-2.0
#include "bench/object_cache/child.h"

#include <dlfcn.h>

#include <cstdlib>
#include <filesystem>
#include <string>

#include "bench/object_cache/floor_source.h"
#include "bench/object_cache/server.h"
#include "bench/object_cache/source.h"

namespace larder::bench {
namespace {

int refuse(const std::string& reason) {
  channel(channel::peer_fd).send_line("! " + reason);
  return 1;
}

// The file that a function is of.
std::filesystem::path home_of(void* function) {
  Dl_info found;
  if (function == nullptr || ::dladdr(function, &found) == 0) return {};
  return std::filesystem::weakly_canonical(found.dli_fname);
}

// Nothing, or why malloc is not the library's that is to be measured: a library that was not preloaded would be
// reported with the figures of another.
std::string malloc_problem(const std::string& library) {
  const std::filesystem::path expected = std::filesystem::weakly_canonical(library);
  for (const char* name : {"malloc", "free", "calloc", "realloc"}) {
    const std::filesystem::path home = home_of(::dlsym(RTLD_DEFAULT, name));
    if (home != expected) return std::string(name) + " is of " + home.string() + ", not of " + library;
  }
  return {};
}

}  // namespace

int serve_peer(const std::string& peer, const std::string& library) {
  if (!library.empty()) {
    const std::string problem = malloc_problem(library);
    return problem.empty() ? server<from_malloc>::serve(library) : refuse(problem);
  }
  if (peer == "larder") {
    const raw_cache::mode mode = object_cache<plain<64>>("bench").active_mode();
    std::string introduction(mode.name);
    if (!mode.reason.empty()) introduction += ": " + std::string(mode.reason);
    return server<from_larder>::serve(introduction);
  }
  if (peer == "rseq_floor") {
    if (!rseq_registered()) return refuse("the C library has registered no restartable sequences");
    return server<from_rseq_array>::serve("a stack for each CPU");
  }
  if (peer == "thread_floor") return server<from_thread_stack>::serve("a stack for each thread");
  if (peer == "ring_alone") return server<ring_alone>::serve("the ring without a source");
#if LARDER_BENCH_BOOST_POOL
  if (peer == "boost_pool") return server<from_boost_pool>::serve("boost::pool behind a std::mutex");
#endif
  return refuse("not known when this was built");
}

}  // namespace larder::bench
