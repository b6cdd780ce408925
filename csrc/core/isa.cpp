// Which instruction set the CPU kernels run with.
#include "core/isa.h"

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>

namespace ecgfast {
namespace {

Isa best() {
  if (has_isa(Isa::avx512)) return Isa::avx512;
  if (has_isa(Isa::avx2)) return Isa::avx2;
  return Isa::baseline;
}

// ECGFAST_ISA=baseline|avx2|avx512 chooses a level from outside, for tests and for comparisons.
Isa first() {
  const char* const wish = std::getenv("ECGFAST_ISA");
  if (wish == nullptr || *wish == '\0') return best();
  for (int level = 0; level < 3; ++level) {
    const Isa isa = static_cast<Isa>(level);
    if (std::strcmp(wish, kIsaNames[level]) == 0 && has_isa(isa)) return isa;
  }
  throw std::invalid_argument(std::string("ECGFAST_ISA=") + wish +
                              " is not baseline, avx2 or avx512, or this processor lacks it");
}

std::atomic<Isa>& chosen() {
  static std::atomic<Isa> level{first()};
  return level;
}

}  // namespace

bool has_isa(Isa level) {
#if defined(__x86_64__)
  __builtin_cpu_init();  // also asks whether the system saves the wide registers
  switch (level) {
    case Isa::avx512:
      return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
    case Isa::avx2:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    case Isa::baseline:
      return true;
  }
#endif
  return level == Isa::baseline;
}

Isa isa() { return chosen().load(std::memory_order_relaxed); }

void use_isa(Isa level) {
  if (!has_isa(level)) throw std::invalid_argument("this processor lacks the instruction set");
  chosen().store(level, std::memory_order_relaxed);
}

}  // namespace ecgfast
