// CPU kernel of clip_transform, compiled once for each instruction set; see contract.h.
//
// A clip goes as bytes through a worker's scratch, which a core's own cache holds, before it is
// known how to scale it. A turn reads kLanes8 planes (a channel of a frame each) side by side, so
// that where a pixel comes from is found once, and what comes from there is a vector.
#include <cstring>

#include "clip_transform/plan.h"
#include "core/dispatch.h"

namespace ecgfast::clip_transform::ECGFAST_ISA {
namespace {

using Byte = std::uint8_t;

// A clip on its way, and a worker's scratch.
struct Clip {
  const Byte* pixels;
  const std::int64_t* plan;
  std::int64_t stride_c, stride_f, stride_y;
  int frames, planes, height, width;  // those that are shown; planes are channels x frames
  std::int64_t stride;                // of all that follows
  Byte* levels;                       // planes x height rows
  Byte* sides;                        // (height + 1) rows of kLanes8 planes side by side
  Byte* rows;                         // kLanes8
  Byte* turned;                       // a row of kLanes8 planes side by side
  std::int32_t* places;               // 5 rows: where, and the weights
};

Clip clip_of(const Transform& job, std::int64_t n, int worker) {
  Clip clip;
  clip.pixels = record<const Byte>(job.clips, n);
  clip.plan = record<const std::int64_t>(job.plan, n);
  clip.stride_c = job.clips.stride[1];
  clip.stride_f = job.clips.stride[2];
  clip.stride_y = job.clips.stride[3];
  clip.frames = static_cast<int>(job.out.size[2]);
  clip.planes = static_cast<int>(job.out.size[1]) * clip.frames;
  clip.height = static_cast<int>(job.out.size[3]);
  clip.width = static_cast<int>(job.out.size[4]);
  clip.stride = scratch_stride(clip.width);
  clip.levels = record<Byte>(job.scratch, worker);
  clip.sides = clip.levels + clip.planes * clip.height * clip.stride;
  clip.rows = clip.sides + kLanes8 * (clip.height + 1) * clip.stride;
  clip.turned = clip.rows + kLanes8 * clip.stride;
  clip.places = reinterpret_cast<std::int32_t*>(clip.turned + kLanes8 * clip.stride);
  return clip;
}

// Row y of a plane after order, window and flip.
void fetch_row(Byte* __restrict__ to, const Clip& clip, int plane, int y) {
  const int width = clip.width;
  const std::int64_t from_y = y + clip.plan[kTop];
  const std::int64_t left = clip.plan[kLeft];
  const std::int64_t begin = left < 0 ? (-left < width ? -left : width) : 0;
  const std::int64_t end = left > 0 ? (left < width ? width - left : 0) : width;
  if (from_y < 0 || from_y >= clip.height || begin >= end) {
    std::memset(to, 0, static_cast<std::size_t>(width));
    return;
  }
  const Byte* __restrict__ const from = clip.pixels + plane / clip.frames * clip.stride_c +
                                        clip.plan[kFrames + plane % clip.frames] * clip.stride_f +
                                        from_y * clip.stride_y + left;
  if (clip.plan[kFlip] == 0) {
    std::memset(to, 0, static_cast<std::size_t>(begin));
    std::memcpy(to + begin, from + begin, static_cast<std::size_t>(end - begin));
    std::memset(to + end, 0, static_cast<std::size_t>(width - end));
    return;
  }
  std::memset(to, 0, static_cast<std::size_t>(width - end));
  Byte* __restrict__ const last = to + width - 1;
#pragma omp simd
  for (std::int64_t x = begin; x < end; ++x) last[-x] = from[x];
  std::memset(to + width - begin, 0, static_cast<std::size_t>(begin));
}

// Rows of kLane planes, one pixel of all after the other.
template <int kLane>
void lay_side_by_side(Byte* __restrict__ to, const Byte* __restrict__ rows, std::int64_t stride,
                      int width) {
  for (int x = 0; x < width; ++x) {
    for (int l = 0; l < kLane; ++l) to[x * kLane + l] = rows[l * stride + x];
  }
}

void find_places(const Clip& clip, int y) {
  const std::int64_t* const map = clip.plan + kMap;
  const std::int64_t u = map[0] + map[2] * y;
  const std::int64_t v = map[3] + map[5] * y;
  std::int32_t* __restrict__ const at = clip.places;
  const std::int64_t stride = clip.stride;
#pragma omp simd
  for (int x = 0; x < clip.width; ++x) {
    const Place4 place = place_at(u + map[1] * x, v + map[4] * x, clip.width, clip.height);
    at[x] = place.y * static_cast<std::int32_t>(stride) + place.x;
    for (int k = 0; k < 4; ++k) at[(k + 1) * stride + x] = place.weight[k];
  }
}

template <int kLane>
void turn_row(Byte* __restrict__ to, const Clip& clip) {
  const Byte* __restrict__ const sides = clip.sides;
  const std::int32_t* __restrict__ const at = clip.places;
  const std::int64_t stride = clip.stride;
  for (int x = 0; x < clip.width; ++x) {
    const Byte* const upper = sides + static_cast<std::int64_t>(at[x]) * kLane;
    const Byte* const lower = upper + stride * kLane;
    const std::int32_t weight[4] = {at[stride + x], at[2 * stride + x], at[3 * stride + x],
                                    at[4 * stride + x]};
#pragma omp simd
    for (int l = 0; l < kLane; ++l) {
      to[x * kLane + l] = static_cast<Byte>(
          blended(upper[l], upper[kLane + l], lower[l], lower[kLane + l], weight));
    }
  }
}

template <int kLane>
void take_apart(Byte* __restrict__ to, std::int64_t plane_stride, const Byte* __restrict__ from,
                int count, int width) {
  for (int l = 0; l < count; ++l) {
    for (int x = 0; x < width; ++x) to[l * plane_stride + x] = from[x * kLane + l];
  }
}

// Levels of `count` planes from `first` on, at most kLane.
template <int kLane>
void turn_planes(const Clip& clip, int first, int count) {
  for (int y = 0; y < clip.height; ++y) {
    for (int l = 0; l < count; ++l) fetch_row(clip.rows + l * clip.stride, clip, first + l, y);
    lay_side_by_side<kLane>(clip.sides + y * clip.stride * kLane, clip.rows, clip.stride,
                            clip.width);
  }
  const std::int64_t plane = clip.height * clip.stride;
  for (int y = 0; y < clip.height; ++y) {
    find_places(clip, y);
    turn_row<kLane>(clip.turned, clip);
    take_apart<kLane>(clip.levels + first * plane + y * clip.stride, plane, clip.turned, count,
                      clip.width);
  }
}

void make_levels(const Clip& clip) {
  if (clip.plan[kTurned] == 0) {
    for (int p = 0; p < clip.planes; ++p) {
      for (int y = 0; y < clip.height; ++y) {
        fetch_row(clip.levels + (p * clip.height + y) * clip.stride, clip, p, y);
      }
    }
    return;
  }
  int first = 0;
  for (; clip.planes - first > 4; first += kLanes8) {
    const int rest = clip.planes - first;
    turn_planes<kLanes8>(clip, first, rest < kLanes8 ? rest : kLanes8);
  }
  if (first < clip.planes) turn_planes<4>(clip, first, clip.planes - first);
}

Found look_at(const Clip& clip, How how) {
  Found found{255, 0, 0, 0};
  const std::int64_t rows = static_cast<std::int64_t>(clip.planes) * clip.height;
  Byte low = 255;
  Byte high = 0;
  for (std::int64_t r = 0; r < rows; ++r) {
    const Byte* __restrict__ const row = clip.levels + r * clip.stride;
#pragma omp simd reduction(min : low) reduction(max : high)
    for (int x = 0; x < clip.width; ++x) {
      low = row[x] < low ? row[x] : low;
      high = row[x] > high ? row[x] : high;
    }
    if (how != How::standard) continue;
    std::uint32_t sum = 0;
    std::uint32_t squares = 0;  // of 32768 pixels at most, so that no sum is too large
#pragma omp simd reduction(+ : sum, squares)
    for (int x = 0; x < clip.width; ++x) {
      const std::uint32_t level = row[x];
      sum += level;
      squares += level * level;
    }
    found.sum += sum;
    found.squares += squares;
  }
  found.low = low;
  found.high = high;
  return found;
}

void write_row(float* __restrict__ to, std::int64_t stride, const Byte* __restrict__ levels,
               int width, const Line& line, const std::int16_t*) {
  const Line own = line;
  if (stride == 1) {
#pragma omp simd
    for (int x = 0; x < width; ++x) to[x] = scaled(levels[x], own);
  } else {
    for (int x = 0; x < width; ++x) to[x * stride] = scaled(levels[x], own);
  }
}

void write_row(std::int16_t* __restrict__ to, std::int64_t stride,
               const Byte* __restrict__ levels, int width, const Line&,
               const std::int16_t* __restrict__ halves) {
  for (int x = 0; x < width; ++x) to[x * stride] = halves[levels[x]];
}

template <typename O>
void write_levels(const Transform& job, const Clip& clip, std::int64_t n) {
  const std::int64_t count =
      static_cast<std::int64_t>(clip.planes) * clip.height * clip.width;
  Found found{};
  if (looks_at_levels(job.how)) found = look_at(clip, job.how);
  for (int c = 0; c < clip.planes / clip.frames; ++c) {
    const Line line = line_of(job.how, found, count, job.mean[c], job.std[c]);
    std::int16_t halves[256];
    for (int v = 0; sizeof(O) == 2 && v < 256; ++v) halves[v] = half_of(scaled(v, line), job.kept);
    for (int f = 0; f < clip.frames; ++f) {
      O* const to = record<O>(job.out, n) + c * job.out.stride[1] + f * job.out.stride[2];
      const Byte* const from =
          clip.levels + (c * clip.frames + f) * static_cast<std::int64_t>(clip.height) * clip.stride;
      for (int y = 0; y < clip.height; ++y) {
        write_row(to + y * job.out.stride[3], job.out.stride[4], from + y * clip.stride, clip.width,
                  line, halves);
      }
    }
  }
}

}  // namespace

void transform(const Transform& job, Range clips) {
  for (std::int64_t n = clips.begin; n < clips.end; ++n) {
    const Clip clip = clip_of(job, n, clips.worker);
    make_levels(clip);
    if (job.out.dtype == DType::f32) {
      write_levels<float>(job, clip, n);
    } else {
      write_levels<std::int16_t>(job, clip, n);
    }
  }
}

}  // namespace ecgfast::clip_transform::ECGFAST_ISA
