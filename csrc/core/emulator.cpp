// The scheduler of the emulator: blocks, warps, meetings; see emulator.h.
#include "core/emulator.h"

#include <algorithm>
#include <map>
#include <mutex>
#include <numeric>
#include <stdexcept>
#include <string_view>
#include <vector>

#include "core/emulator_fibers.h"

namespace ecgfast::emulator {

Now now;

namespace {

constexpr std::uint32_t kWholeWarp = 0xffffffffu;

struct Trap : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct Warp {
  std::uint32_t ready;         // lanes that could run
  std::uint32_t arrived;       // lanes that wait for the others of the warp
  std::uint32_t step;          // see Now
  int parity;                  // which of the slots the next meeting uses
  Site site;                   // where they meet
  std::uint64_t slots[2][32];  // two, so that none is overwritten before all lanes have read it
};

enum class Order { forward, backward, random };

struct Machine {
  const std::function<void()>* thread = nullptr;
  std::string kernel;
  Warp warps[kMostFibers / 32];
  std::uint32_t ready = 0;  // warps with lanes that could run
  int threads = 0;
  int ended = 0;
  int at_barrier = 0;
  Site barrier{};
  std::string failure;

  Order order = Order::forward;
  std::uint64_t draw = 0;
  int schedules = 3;
  std::uint64_t seed = 1;
  std::uint32_t turn = 0;     // who leads; the same under every schedule
  std::uint32_t counter = 0;  // of intervals and steps
  std::uint32_t serial = 0;   // of blocks
};
Machine machine;
std::mutex one_job;

std::uint32_t random_below(std::uint32_t bound) {  // xorshift64*
  machine.draw ^= machine.draw >> 12;
  machine.draw ^= machine.draw << 25;
  machine.draw ^= machine.draw >> 27;
  return static_cast<std::uint32_t>((machine.draw * 0x2545f4914f6cdd1d) >> 33) % bound;
}

int count(std::uint32_t lanes) { return __builtin_popcount(lanes); }

// The bit that comes first when counting starts at bit `first`.
int next_bit(std::uint32_t bits, int first) {
  const std::uint32_t turned = first == 0 ? bits : bits >> first | bits << (32 - first);
  return (__builtin_ctz(turned) + first) % 32;
}

std::string written_out(const Grid& grid) {
  return "(" + std::to_string(grid.x) + ", " + std::to_string(grid.y) + ", " +
         std::to_string(grid.z) + ")";
}

std::string written_out(const Site& site) {
  const std::string file = site.file;
  const std::size_t room = file.rfind("csrc/");
  return std::string(site.what) + " at " +
         (room == std::string::npos ? file : file.substr(room + 5)) + ":" +
         std::to_string(site.line);
}

bool same(const Site& a, const Site& b) {
  return a.line == b.line && std::string_view(a.file) == b.file &&
         std::string_view(a.what) == b.what;
}

std::string place() { return machine.kernel + ", block " + written_out(now.block); }

// The body of every fiber. Nothing may be thrown out of it.
void run_thread() {
  try {
    (*machine.thread)();
  } catch (const std::exception& error) {
    machine.failure = error.what();
  } catch (...) {
    machine.failure = place() + ": something unknown was thrown";
  }
  ++machine.ended;
}

void make_ready(int w) {
  machine.warps[w].ready = kWholeWarp;
  machine.ready |= 1u << w;
}

void wait() { pause_fiber(now.thread); }

void deadlock() {
  std::map<std::string, int> waiting;
  for (int w = 0; w < machine.threads / 32; ++w) {
    const Warp& warp = machine.warps[w];
    if (warp.arrived == 0) continue;
    waiting[written_out(warp.site)] += count(warp.arrived);
  }
  if (machine.at_barrier > 0) waiting[written_out(machine.barrier)] += machine.at_barrier;
  std::string text = place() + ": deadlock, of " + std::to_string(machine.threads) + " threads";
  for (const auto& [where, threads] : waiting) {
    text += " " + std::to_string(threads) + " wait in " + where + ",";
  }
  throw Trap(text + " " + std::to_string(machine.ended) + " have ended");
}

// In order, the leading warp changes with every barrier and block: each in turn gets as far ahead
// of the others as barriers let it. Of any two warps, each is ahead of the other under one of the
// first two schedules.
int choose_warp(std::uint32_t ready, int leader) {
  switch (machine.order) {
    case Order::forward:
      return next_bit(ready, leader);
    case Order::backward:  // the last of the forward order
      for (int back = 31;; --back) {
        const int warp = (leader + back) % 32;
        if (ready >> warp & 1) return warp;
      }
    default:
      return next_bit(ready, static_cast<int>(random_below(32)));
  }
}

int choose_lane(std::uint32_t ready) {
  switch (machine.order) {
    case Order::forward:
      return __builtin_ctz(ready);
    case Order::backward:
      return 31 - __builtin_clz(ready);
    default:
      return next_bit(ready, static_cast<int>(random_below(32)));
  }
}

void run_block(std::size_t shared_bytes) {
  const int warps = machine.threads / 32;
  now.interval = now.first_interval = ++machine.counter;
  machine.ended = machine.at_barrier = 0;
  machine.ready = 0;
  for (int w = 0; w < warps; ++w) {
    make_ready(w);
    machine.warps[w].arrived = 0;
    machine.warps[w].step = ++machine.counter;
  }
  begin_block(shared_bytes);
  for (int t = 0; t < machine.threads; ++t) start_fiber(t, &run_thread);

  while (machine.ended < machine.threads) {
    if (machine.ready == 0) deadlock();
    const int w = choose_warp(machine.ready, static_cast<int>(machine.turn % warps));
    Warp& warp = machine.warps[w];
    const int lane = choose_lane(warp.ready);
    warp.ready &= ~(1u << lane);
    if (warp.ready == 0) machine.ready &= ~(1u << w);
    now.warp = w;
    now.lane = lane;
    now.thread = w * 32 + lane;
    now.step = warp.step;
    resume_fiber(now.thread);
    if (!machine.failure.empty()) throw Trap(machine.failure);
  }
}

}  // namespace

void trap(const std::string& what) {
  throw Trap(place() + ", thread " + std::to_string(now.thread) + ": " + what);
}

const std::string& kernel_name() { return machine.kernel; }

const std::uint64_t* meet_warp(const Site& site, std::uint64_t value) {
  Warp& warp = machine.warps[now.warp];
  if (warp.arrived == 0) {
    warp.site = site;
  } else if (!same(warp.site, site)) {
    trap("comes to " + written_out(site) + " while other lanes of its warp wait in " +
         written_out(warp.site));
  }
  std::uint64_t* const slots = warp.slots[warp.parity];
  slots[now.lane] = value;
  warp.arrived |= 1u << now.lane;
  if (warp.arrived == kWholeWarp) {
    warp.arrived = 0;
    warp.parity ^= 1;
    make_ready(now.warp);
  }
  wait();
  return slots;
}

void sync_warp(const Site& site) {
  Warp& warp = machine.warps[now.warp];
  if (count(warp.arrived) == 31) warp.step = ++machine.counter;  // this lane is the last one
  meet_warp(site, 0);
}

void sync_block(const Site& site) {
  if (machine.at_barrier == 0) {
    machine.barrier = site;
  } else if (!same(machine.barrier, site)) {
    trap("comes to " + written_out(site) + " while other threads wait in " +
         written_out(machine.barrier));
  }
  if (++machine.at_barrier == machine.threads) {
    machine.at_barrier = 0;
    now.interval = ++machine.counter;
    ++machine.turn;
    for (int w = 0; w < machine.threads / 32; ++w) {
      machine.warps[w].step = ++machine.counter;
      make_ready(w);
    }
  }
  wait();
}

void launch(const std::string& kernel, Grid grid, int threads, std::size_t shared_bytes,
            const std::function<void()>& thread) {
  machine.kernel = kernel;
  machine.thread = &thread;
  machine.threads = threads;
  machine.failure.clear();
  const auto refuse = [&](const std::string& what) { throw Trap(kernel + ": " + what); };
  if (threads < 32 || threads > kMostFibers || threads % 32 != 0) {
    refuse("a block must have whole warps, at most 1024 threads, got " + std::to_string(threads));
  }
  if (grid.x < 1 || grid.y < 1 || grid.z < 1 || grid.x > 0x7fffffffu || grid.y > 65535 ||
      grid.z > 65535) {
    refuse("a grid must be at least (1, 1, 1) and at most (2^31 - 1, 65535, 65535), got " +
           written_out(grid));
  }
  if (shared_bytes > kMostSharedBytes) {
    refuse("a block may have " + std::to_string(kMostSharedBytes) +
           " bytes of shared memory, got " + std::to_string(shared_bytes));
  }
  for (int t = 0; t < threads; ++t) guard_stack(t);
  const std::size_t blocks = std::size_t{grid.x} * grid.y * grid.z;
  std::vector<std::size_t> order(blocks);
  std::iota(order.begin(), order.end(), 0);
  if (machine.order == Order::backward) std::reverse(order.begin(), order.end());
  if (machine.order == Order::random) {
    for (std::size_t b = blocks; b > 1; --b) {
      std::swap(order[b - 1], order[random_below(static_cast<std::uint32_t>(b))]);
    }
  }
  now.blocks = grid;
  now.first_serial = machine.serial + 1;
  for (const std::size_t b : order) {
    now.block = {static_cast<unsigned>(b % grid.x), static_cast<unsigned>(b / grid.x % grid.y),
                 static_cast<unsigned>(b / grid.x / grid.y)};
    now.serial = ++machine.serial;
    machine.turn = static_cast<std::uint32_t>(b);
    run_block(shared_bytes);
  }
  for (int t = 0; t < threads; ++t) {
    if (!fiber_fits(t)) refuse("a thread has overrun its stack of 256 kB");
  }
}

std::string kernel_in(const std::string& signature) {
  const std::string key = "kKernel = ";
  std::size_t begin = signature.find(key) + key.size();
  std::string name = signature.substr(begin, signature.find_first_of(";]", begin) - begin);
  for (const char* const noise : {"{anonymous}::", "ecgfast::"}) {
    while ((begin = name.find(noise)) != std::string::npos) {
      name.erase(begin, std::string_view(noise).size());
    }
  }
  return name;
}

void emulate(const std::function<void()>& job) {
  const std::lock_guard<std::mutex> lock(one_job);
  machine.serial = 0;
  if (machine.counter > UINT32_MAX / 2) {
    machine.counter = 0;
    forget_intervals();
  }
  try {
    for (int schedule = 0; schedule < machine.schedules; ++schedule) {
      machine.order = schedule < 2 ? static_cast<Order>(schedule) : Order::random;
      machine.draw = machine.seed * 0x9e3779b97f4a7c15 + static_cast<std::uint64_t>(schedule) + 1;
      begin_schedule();
      job();
      end_schedule();
    }
  } catch (...) {
    end_job(true);
    throw;
  }
  end_job(false);
}

void use_schedules(int schedules, std::uint64_t seed) {
  const std::lock_guard<std::mutex> lock(one_job);
  machine.schedules = std::max(1, schedules);
  machine.seed = seed;
}

}  // namespace ecgfast::emulator
