// Fibers for the emulator: on x86-64 by a switch of our own, since swapcontext() asks the kernel
// for the signal mask each time, which costs more than all the rest; elsewhere by swapcontext().
#include "core/emulator_fibers.h"

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <stdexcept>

#if !defined(__x86_64__) || defined(ECGFAST_UCONTEXT)
#include <ucontext.h>
#define ECGFAST_OWN_SWITCH 0
#else
#define ECGFAST_OWN_SWITCH 1
#endif

namespace ecgfast::emulator {
namespace {

// Not a power of 2 apart: the tops of all stacks would fall into the same lines of the caches.
constexpr std::size_t kStackBytes = 256 * 1024 + 4096 + 320;
constexpr std::uint64_t kUntouched = 0x5afe5afe5afe5afe;

#if ECGFAST_OWN_SWITCH
using Context = void*;  // the stack pointer, below what the called function must keep
#else
using Context = ucontext_t;
#endif

struct Fiber {
  Context context;
  void (*body)();
};

Fiber fibers[kMostFibers];
Context scheduler;
int starting = 0;

char* stack(int index) {
  static char* const all = [] {
    void* const memory = mmap(nullptr, kMostFibers * kStackBytes, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) throw std::runtime_error("the emulator got no memory for its stacks");
    return static_cast<char*>(memory);
  }();
  return all + index * kStackBytes;
}

}  // namespace

#if ECGFAST_OWN_SWITCH
// void ecgfast_switch(void** keep, void* go_on)
extern "C" void ecgfast_switch(void** keep, void* go_on);
asm(R"(
  .pushsection .text
  .hidden ecgfast_switch
  .globl ecgfast_switch
  .type ecgfast_switch, @function
ecgfast_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
  .size ecgfast_switch, .-ecgfast_switch
  .popsection
)");
#endif

namespace {

void switch_context(Context* from, Context* to) {
#if ECGFAST_OWN_SWITCH
  ecgfast_switch(from, *to);
#else
  swapcontext(from, to);
#endif
}

void enter() {
  const int index = starting;
  fibers[index].body();
  pause_fiber(index);  // for ever
}

}  // namespace

void start_fiber(int index, void (*body)()) {
  Fiber& fiber = fibers[index];
  fiber.body = body;
#if ECGFAST_OWN_SWITCH
  // As ecgfast_switch would have left it: six registers, the address to return to, and above it
  // what the stack pointer is on entry to a function, 8 past a multiple of 16.
  const auto top = reinterpret_cast<std::uintptr_t>(stack(index) + kStackBytes) / 16 * 16;
  void** const words = reinterpret_cast<void**>(top) - 8;
  std::memset(words, 0, 8 * sizeof(void*));
  words[6] = reinterpret_cast<void*>(&enter);
  fiber.context = words;
#else
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = stack(index);
  fiber.context.uc_stack.ss_size = kStackBytes;
  fiber.context.uc_link = nullptr;
  makecontext(&fiber.context, &enter, 0);
#endif
}

void resume_fiber(int index) {
  starting = index;
  switch_context(&scheduler, &fibers[index].context);
}

void pause_fiber(int index) { switch_context(&fibers[index].context, &scheduler); }

void guard_stack(int index) { std::memcpy(stack(index), &kUntouched, sizeof(kUntouched)); }

bool fiber_fits(int index) {
  return std::memcmp(stack(index), &kUntouched, sizeof(kUntouched)) == 0;
}

}  // namespace ecgfast::emulator
