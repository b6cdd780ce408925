// One kernel, several instruction sets. A kernel's file is compiled once for each level, each time
// with ECGFAST_ISA set to the level's name, which is the namespace that it defines its entry in.
#pragma once

#include "core/view.h"

namespace ecgfast {

// The levels of one kernel; nullptr where the build has none.
template <typename Job>
struct Levels {
  void (*baseline)(const Job&, Range);
  void (*avx2)(const Job&, Range);
  void (*avx512)(const Job&, Range);
  void (*cuda)(const Job&, std::uint64_t stream);
};

enum class Isa : int { baseline = 0, avx2 = 1, avx512 = 2 };
constexpr const char* kIsaNames[] = {"baseline", "avx2", "avx512"};

Isa isa();  // the best that this processor has, or what ECGFAST_ISA or use_isa() chose
void use_isa(Isa level);  // throws std::invalid_argument if this processor lacks it
bool has_isa(Isa level);

}  // namespace ecgfast

// clang-format off

// In a contract: declares kernel `name` for a job, at every level there may be.
#define ECGFAST_DECLARE(name, Job)                                    \
  namespace baseline { void name(const Job& job, Range range); }      \
  namespace avx2 { void name(const Job& job, Range range); }          \
  namespace avx512 { void name(const Job& job, Range range); }        \
  namespace cuda { void name(const Job& job, std::uint64_t stream); }

// In a binding: the levels of kernel `name` that this build has, to be chosen from at run time.
#if defined(ECGFAST_EMULATED)  // core/emulator.h runs the CUDA kernels and nothing else
#define ECGFAST_LEVELS(name) {nullptr, nullptr, nullptr, &cuda::name}
#else
#define ECGFAST_LEVELS(name) \
  {&baseline::name, ECGFAST_IF_X86(&avx2::name), ECGFAST_IF_X86(&avx512::name), ECGFAST_IF_CUDA(&cuda::name)}
#endif

// clang-format on

#if defined(__x86_64__)
#define ECGFAST_IF_X86(kernel) kernel
#else
#define ECGFAST_IF_X86(kernel) nullptr
#endif

#if defined(ECGFAST_CUDA)
#define ECGFAST_IF_CUDA(kernel) kernel
#else
#define ECGFAST_IF_CUDA(kernel) nullptr
#endif
