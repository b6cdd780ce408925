// Numbers too small to be normal, which many processors take a hundred cycles for. Included by CPU
// kernels alone.
#pragma once

#if defined(__SSE2__)
#include <xmmintrin.h>
#endif

namespace ecgfast {
namespace {

// While it lives, they are zeros in the thread that made it.
class FlushSubnormals {
 public:
#if defined(__SSE2__)
  FlushSubnormals() : before_(_mm_getcsr()) { _mm_setcsr(before_ | 0x8040); }
  ~FlushSubnormals() { _mm_setcsr(before_); }

 private:
  unsigned before_;
#else
  FlushSubnormals() {}
  ~FlushSubnormals() {}
#endif
};

}  // namespace
}  // namespace ecgfast
