// SPDX-License-Identifier: Apache-2.0
#include "cache/debug_trace.h"

#include <cxxabi.h>
#include <dlfcn.h>
#include <unwind.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "os/thread.h"

namespace larder::cache {
namespace {

struct walk {
  debug_trace& into;
  int skipped;
};

_Unwind_Reason_Code take_frame(_Unwind_Context* context, void* argument) {
  auto& at = *static_cast<walk*>(argument);
  if (at.skipped > 0) {
    --at.skipped;
    return _URC_NO_REASON;
  }
  const auto address = _Unwind_GetIP(context);
  if (address == 0 || at.into.depth == debug_trace::depth_max) return _URC_END_OF_STACK;
  at.into.frames[at.into.depth++] = reinterpret_cast<void*>(address);
  return _URC_NO_REASON;
}

std::string with_offset(const char* name, const void* address, const void* base) {
  char offset[32];
  std::snprintf(offset, sizeof offset, "+0x%zx",
                static_cast<std::size_t>(static_cast<const char*>(address) - static_cast<const char*>(base)));
  return std::string(name) + offset;
}

}  // namespace

debug_trace debug_trace::here() {
  debug_trace made;
  made.thread = os::thread_id();
  walk at{made, 2};
  _Unwind_Backtrace(&take_frame, &at);
  return made;
}

std::string describe_frame(void* return_address) {
  Dl_info found{};
  // A call may be the last instruction of its function: the address before is in the caller for certain.
  if (dladdr(static_cast<char*>(return_address) - 1, &found) == 0 || found.dli_fname == nullptr) {
    char text[32];
    std::snprintf(text, sizeof text, "%p", return_address);
    return text;
  }
  const char* slash = std::strrchr(found.dli_fname, '/');
  const char* module = slash == nullptr ? found.dli_fname : slash + 1;
  if (found.dli_sname == nullptr) return with_offset(module, return_address, found.dli_fbase);
  int status = 0;
  char* plain = abi::__cxa_demangle(found.dli_sname, nullptr, nullptr, &status);
  std::string text = with_offset(plain == nullptr ? found.dli_sname : plain, return_address, found.dli_saddr);
  std::free(plain);
  return text + " (" + module + ")";
}

std::string describe_trace(const char* what, const debug_trace& trace) {
  if (trace.thread == 0) return {};
  std::string text = "\n  " + std::string(what) + " by thread " + std::to_string(trace.thread) + ":";
  for (std::uint32_t at = 0; at < trace.depth; ++at) text += "\n    " + describe_frame(trace.frames[at]);
  return text;
}

}  // namespace larder::cache
