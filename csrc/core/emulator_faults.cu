// Small kernels, each sound or with one planted fault, which show that the emulator finds it.
#include <iterator>
#include <stdexcept>
#include <string>
#include <string_view>

#include "core/cuda.cuh"
#include "core/emulator_faults.h"

namespace ecgfast::emulator_faults {
namespace {

constexpr int kThreads = 64;

// Every kernel is one block of two warps, unless it says otherwise, and copies x to y, (64,) both,
// in its own way.
#define ECGFAST_FAULTY(name) __global__ void name([[maybe_unused]] Job job)

__device__ int mine() { return thread_index(); }
__device__ Global<const float> in(const Job& job) { return global<const float>(job.x); }
__device__ Global<float> out(const Job& job) { return global<float>(job.y); }

ECGFAST_FAULTY(missing_barrier) {
  ECGFAST_SHARED(float, tile, kThreads);
  const int other = kThreads - 1 - mine();
  tile[other] = in(job)[other];
  if (!job.planted) sync_block();
  out(job)[mine()] = tile[mine()];
}

ECGFAST_FAULTY(missing_second_barrier) {  // half the values at a time through the same memory
  ECGFAST_SHARED(float, tile, kThreads / 2);
  for (int half = 0; half < 2; ++half) {
    if (warp_index() == half) tile[lane_index()] = in(job)[mine()];
    sync_block();
    const float x = tile[lane_index()];
    if (warp_index() != half) out(job)[half * 32 + lane_index()] = x;
    if (!job.planted) sync_block();
  }
}

ECGFAST_FAULTY(missing_barrier_in_global_memory) {  // only the order of warps can show it
  const Global<float> y = update<float>(job.y);
  const int other = kThreads - 1 - mine();
  y[other] = in(job)[other];
  if (!job.planted) sync_block();
  const float x = y[mine()];
  sync_block();
  y[mine()] = x;
}

ECGFAST_FAULTY(missing_warp_barrier) {
  ECGFAST_SHARED(float, tile, kThreads);
  const int other = mine() ^ 31;
  tile[other] = in(job)[other];
  if (!job.planted) sync_warp();
  out(job)[mine()] = tile[mine()];
}

ECGFAST_FAULTY(barrier_in_divergent_code) {
  if (!job.planted || mine() < 48) sync_block();
  out(job)[mine()] = in(job)[mine()];
}

ECGFAST_FAULTY(two_barriers_for_one) {
  if (job.planted && warp_index() == 0) {
    sync_block();
  } else {
    sync_block();
  }
  out(job)[mine()] = in(job)[mine()];
}

ECGFAST_FAULTY(shuffle_in_divergent_code) {
  float x = in(job)[mine()];
  if (!job.planted || lane_index() < 16) x = shuffle_xor(shuffle_xor(x, 3), 3);
  out(job)[mine()] = x;
}

ECGFAST_FAULTY(two_shuffles_for_one) {
  float x = in(job)[mine()];
  x = job.planted && lane_index() == 7 ? shuffle(x, lane_index()) : shuffle_xor(x, 0);
  out(job)[mine()] = x;
}

ECGFAST_FAULTY(read_out_of_bounds) {
  const float next = in(job)[job.planted ? mine() + 1 : mine()];
  out(job)[mine()] = next;
}

ECGFAST_FAULTY(read_past_its_record) {  // still inside the tensor
  const auto x = record<const float>(job.x, mine());
  out(job)[mine()] = x[job.planted && mine() == 5 ? 1 : 0];
}

ECGFAST_FAULTY(write_out_of_bounds) {
  const auto y = out(job) + mine();
  y[job.planted && mine() == 0 ? -1 : 0] = in(job)[mine()];
}

ECGFAST_FAULTY(shared_out_of_bounds) {
  ECGFAST_SHARED(float, tile, kThreads);
  tile[mine() + (job.planted ? 1 : 0)] = in(job)[mine()];
  out(job)[mine()] = tile[mine() + (job.planted ? 1 : 0)];
}

ECGFAST_FAULTY(misaligned_vector) {
  if (mine() % 4 != 0) return;
  float4 x = load_as<float4>(in(job) + (mine() + (job.planted && mine() == 0 ? 1 : 0)));
  store_as(out(job) + mine(), x);
}

ECGFAST_FAULTY(wrong_dtype) {
  const float x = in(job)[mine()];
  if (job.planted) {
    global<int>(job.y)[mine()] = 0;
  } else {
    out(job)[mine()] = x;
  }
}

ECGFAST_FAULTY(unwritten) {
  if (!job.planted || mine() != 17) out(job)[mine()] = in(job)[mine()];
}

ECGFAST_FAULTY(unwritten_integer) {
  const auto y = global<std::int32_t>(job.counts);
  if (!job.planted || mine() != 17) y[mine()] = -1;
  out(job)[mine()] = in(job)[mine()];
}

ECGFAST_FAULTY(output_read_before_written) {
  const auto y = out(job);
  if (!job.planted) y[mine()] = 0;
  y[mine()] += in(job)[mine()];
}

ECGFAST_FAULTY(shared_read_before_written) {
  ECGFAST_SHARED(std::int32_t, tile, kThreads);
  if (!job.planted || mine() != 40) tile[mine()] = mine();
  out(job)[mine()] = in(job)[tile[mine()] == mine() ? mine() : 0];
}

// Through 16 lanes' copies of 16 bytes each, waited for in two groups.
ECGFAST_FAULTY(copy_not_waited_for) {
  const Shared<float> tile = dynamic_shared<float>();
  if (mine() < 16) {
    copy_async<16>(tile + 4 * mine(), in(job) + 4 * mine());
    copy_commit();
    copy_commit();
    if (job.planted) {
      copy_wait<2>();
    } else {
      copy_wait<1>();
    }
  }
  sync_block();
  out(job)[mine()] = tile[mine()];
}

ECGFAST_FAULTY(copy_not_committed) {
  const Shared<float> tile = dynamic_shared<float>(64);
  copy_async<4>(tile + mine(), in(job) + mine());
  if (!job.planted) copy_commit();
  copy_wait<0>();
  out(job)[mine()] = tile[mine()];
}

ECGFAST_FAULTY(copy_seen_without_a_barrier) {
  const Shared<float> tile = dynamic_shared<float>();
  copy_async<4>(tile + (mine() ^ 32), in(job) + (mine() ^ 32));
  copy_commit();
  copy_wait<0>();
  if (!job.planted) sync_block();
  out(job)[mine()] = tile[mine()];
}

ECGFAST_FAULTY(sum_without_atomics) {
  ECGFAST_SHARED(int, total, 1);
  if (mine() == 0) total[0] = 0;
  sync_block();
  if (job.planted) {
    total[0] += 1;
  } else {
    atomic_add(total, 1);
  }
  sync_block();
  out(job)[mine()] = total[0] == kThreads ? in(job)[mine()] : 0;
}

ECGFAST_FAULTY(last_one_wins) {
  const auto y = out(job);
  y[mine()] = in(job)[mine()];
  const auto count = update<std::int32_t>(job.counts);
  if (job.planted) {
    atomic_exchange(count, mine());
  } else {
    atomic_max(count, mine());
  }
}

ECGFAST_FAULTY(blocks_write_the_same) {  // two blocks
  const int block = job.planted ? 0 : block_index();
  if (warp_index() == block) out(job)[mine()] = in(job)[mine()];
  if (job.planted && mine() == 9) out(job)[9] = static_cast<float>(block_index());
}

ECGFAST_FAULTY(part_of_a_warp) { out(job)[mine()] = in(job)[mine()]; }

template <auto kKernel>
void one_block(const Job& job) {
  launch<kKernel>({1}, kThreads, 4 * kThreads + 64, 0, job);
}

struct Fault {
  const char* name;
  void (*run)(const Job&);
};

#define ECGFAST_ONE_BLOCK(name) {#name, &one_block<name>}

constexpr Fault kFaults[] = {
    ECGFAST_ONE_BLOCK(missing_barrier),
    ECGFAST_ONE_BLOCK(missing_second_barrier),
    ECGFAST_ONE_BLOCK(missing_barrier_in_global_memory),
    ECGFAST_ONE_BLOCK(missing_warp_barrier),
    ECGFAST_ONE_BLOCK(barrier_in_divergent_code),
    ECGFAST_ONE_BLOCK(two_barriers_for_one),
    ECGFAST_ONE_BLOCK(shuffle_in_divergent_code),
    ECGFAST_ONE_BLOCK(two_shuffles_for_one),
    ECGFAST_ONE_BLOCK(read_out_of_bounds),
    ECGFAST_ONE_BLOCK(read_past_its_record),
    ECGFAST_ONE_BLOCK(write_out_of_bounds),
    ECGFAST_ONE_BLOCK(shared_out_of_bounds),
    ECGFAST_ONE_BLOCK(misaligned_vector),
    ECGFAST_ONE_BLOCK(wrong_dtype),
    ECGFAST_ONE_BLOCK(unwritten),
    ECGFAST_ONE_BLOCK(unwritten_integer),
    ECGFAST_ONE_BLOCK(output_read_before_written),
    ECGFAST_ONE_BLOCK(shared_read_before_written),
    ECGFAST_ONE_BLOCK(copy_not_waited_for),
    ECGFAST_ONE_BLOCK(copy_not_committed),
    ECGFAST_ONE_BLOCK(copy_seen_without_a_barrier),
    ECGFAST_ONE_BLOCK(sum_without_atomics),
    ECGFAST_ONE_BLOCK(last_one_wins),
    {"blocks_write_the_same",
     [](const Job& job) { launch<blocks_write_the_same>({2}, kThreads, 0, 0, job); }},
    {"part_of_a_warp",
     [](const Job& job) {
       launch<part_of_a_warp>({1}, job.planted ? kThreads - 1 : kThreads, 0, 0, job);
     }},
};

}  // namespace

void run(const char* name, const Job& job) {
  for (const Fault& fault : kFaults) {
    if (std::string_view(fault.name) == name) return fault.run(job);
  }
  throw std::invalid_argument(std::string("no fault is called ") + name);
}

int count() { return static_cast<int>(std::size(kFaults)); }
const char* name(int index) { return kFaults[index].name; }

}  // namespace ecgfast::emulator_faults
