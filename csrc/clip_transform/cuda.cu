// CUDA kernel of clip_transform; see contract.h.
//
// A thread finds out where a pixel comes from, and brings it of all frames and channels. Levels are
// made twice where a clip is scaled by them: what they are read from is in cache by then, and bytes
// are a quarter of what would have to be kept.
#include "clip_transform/plan.h"
#include "core/cuda.cuh"

namespace ecgfast::clip_transform::cuda {
namespace {

constexpr int kThreads = 512;

// Offsets of pixels from a plane's first, 0 and false where there is none: one, or four and the
// shares of those to the right and below.
struct Taps {
  std::int64_t at[4];
  bool there[4];
  std::int16_t right, below;
};

// The pixel that stands at (x, y) after window and flip.
__device__ void put_tap(Taps& taps, int k, const Transform& job,
                        const Global<const std::int64_t>& plan, std::int32_t x, std::int32_t y) {
  const std::int64_t width = job.clips.size[4];
  const std::int64_t from_x = (plan[kFlip] != 0 ? width - 1 - x : x) + plan[kLeft];
  const std::int64_t from_y = y + plan[kTop];
  taps.there[k] = x < width && y < job.clips.size[3] && from_x >= 0 && from_x < width &&
                  from_y >= 0 && from_y < job.clips.size[3];
  taps.at[k] = taps.there[k] ? from_y * job.clips.stride[3] + from_x : 0;
}

__device__ Taps taps_at(const Transform& job, const Global<const std::int64_t>& plan, bool turned,
                        std::int32_t x, std::int32_t y) {
  Taps taps{};
  if (!turned) {
    put_tap(taps, 0, job, plan, x, y);
    return taps;
  }
  const Spot spot =
      spot_at(static_cast<double>(plan[kMap] + plan[kMap + 1] * x + plan[kMap + 2] * y),
              static_cast<double>(plan[kMap + 3] + plan[kMap + 4] * x + plan[kMap + 5] * y),
              static_cast<double>(job.clips.size[4]), static_cast<double>(job.clips.size[3]));
#pragma unroll
  for (int k = 0; k < 4; ++k) put_tap(taps, k, job, plan, spot.x + k % 2, spot.y + k / 2);
  taps.right = static_cast<std::int16_t>(spot.right);
  taps.below = static_cast<std::int16_t>(spot.below);
  return taps;
}

__device__ std::int16_t steps_at(const Global<const std::uint8_t>& plane, const Taps& taps, int k) {
  return static_cast<std::int16_t>(taps.there[k] ? load_readonly(plane + taps.at[k]) << kSteps : 0);
}

// Calls body(level, channel, shown frame, x, y) for this thread's share of a clip.
template <typename Body>
__device__ void each_level(const Transform& job, std::int64_t n, int part, int parts,
                           const Body& body) {
  const Global<const std::uint8_t> pixels = record<const std::uint8_t>(job.clips, n);
  const Global<const std::int64_t> plan = record<const std::int64_t>(job.plan, n);
  const bool turned = plan[kTurned] != 0;
  const std::int64_t frames = job.clips.size[2];
  const int width = static_cast<int>(job.clips.size[4]);
  const int count = width * static_cast<int>(job.clips.size[3]);
  for (int i = part * kThreads + thread_index(); i < count; i += parts * kThreads) {
    const Taps taps = taps_at(job, plan, turned, i % width, i / width);
    for (int c = 0; c < static_cast<int>(job.out.size[1]); ++c) {
#pragma unroll 2
      for (int g = 0; g < static_cast<int>(job.out.size[2]); ++g) {
        const std::int64_t named = plan[kFrames + g];
        const std::int64_t frame = named < 0 ? 0 : named < frames ? named : frames - 1;
        const Global<const std::uint8_t> plane =
            pixels + (c * job.clips.stride[1] + frame * job.clips.stride[2]);
        std::int32_t level;
        if (turned) {
          level = level_between(steps_at(plane, taps, 0), steps_at(plane, taps, 1),
                                steps_at(plane, taps, 2), steps_at(plane, taps, 3), taps.right,
                                taps.below);
        } else {
          level = taps.there[0] ? load_readonly(plane + taps.at[0]) : 0;
        }
        body(level, c, g, i % width, i / width);
      }
    }
  }
}

// The greatest over all threads of a block, returned to every one of them.
__device__ std::int32_t block_most(std::int32_t value) {
  ECGFAST_SHARED(std::int32_t, partial, kThreads / 32);
  for (int step = 16; step > 0; step /= 2) value = max(value, shuffle_xor(value, step));
  sync_block();  // a former call may still be reading
  if (lane_index() == 0) partial[warp_index()] = value;
  sync_block();
  std::int32_t most = partial[0];
  for (int warp = 1; warp < kThreads / 32; ++warp) {
    most = max(most, static_cast<std::int32_t>(partial[warp]));
  }
  return most;
}

__device__ void store(float value, DType, const Global<float>& to) { to[0] = value; }
__device__ void store(float value, DType kept, const Global<std::int16_t>& to) {
  to[0] = half_of(value, kept);
}

// One block a clip, or a part of one where a clip's levels do not decide how it is scaled. Grid:
// clips, parts. Reads the clip, twice where they do, and writes it.
template <typename O>
__global__ void __launch_bounds__(kThreads, 2) transform_kernel(Transform job, int parts) {
  const std::int64_t n = block_index();
  const int part = block_index_y();
  Found found{255, 0, 0, 0};
  if (looks_at_levels(job.how)) {
    each_level(job, n, 0, 1, [&](std::int32_t level, int, int, int, int) {
      found.low = min(found.low, level);
      found.high = max(found.high, level);
      found.sum += level;
      found.squares += level * level;
    });
    found.low = 255 - block_most(255 - found.low);
    found.high = block_most(found.high);
    if (job.how == How::standard) {
      found.sum = block_sum<kThreads>(found.sum);
      found.squares = block_sum<kThreads>(found.squares);
    }
  }
  const std::int64_t count = job.out.size[1] * job.out.size[2] * job.out.size[3] * job.out.size[4];
  ECGFAST_SHARED(Line, lines, 3);
  if (thread_index() < 3) {
    lines[thread_index()] =
        line_of(job.how, found, count, job.mean[thread_index()], job.std[thread_index()]);
  }
  sync_block();
  const Global<O> out = record<O>(job.out, n);
  each_level(job, n, part, parts, [&](std::int32_t level, int c, int g, int x, int y) {
    const Line line = lines[c];
    store(scaled(level, line), job.kept,
          out + (c * job.out.stride[1] + g * job.out.stride[2] + y * job.out.stride[3] +
                 x * job.out.stride[4]));
  });
}

}  // namespace

void transform(const Transform& job, std::uint64_t stream) {
  const std::int64_t pixels = job.out.size[3] * job.out.size[4];
  const std::int64_t most = (pixels + kThreads - 1) / kThreads;
  const int parts = looks_at_levels(job.how) ? 1 : static_cast<int>(most < 64 ? most : 64);
  const Grid grid{static_cast<unsigned>(job.out.size[0]), static_cast<unsigned>(parts)};
  if (job.out.dtype == DType::f32) {
    launch<transform_kernel<float>>(grid, kThreads, 0, stream, job, parts);
  } else {
    launch<transform_kernel<std::int16_t>>(grid, kThreads, 0, stream, job, parts);
  }
}

}  // namespace ecgfast::clip_transform::cuda
