// CPU kernel of clip_transform, compiled once for each instruction set; see contract.h.
//
// A clip goes as bytes through a worker's scratch, which a core's own cache holds, before it is
// known how to scale it. A turn reads kTurns planes (a channel of a frame each) side by side, so
// that where a pixel comes from is found once, and what comes from there is a vector.
#include <cstring>

#include "clip_transform/sides.h"
#include "core/dispatch.h"

namespace ecgfast::clip_transform::ECGFAST_ISA {
namespace {

using Step = std::int16_t;

// A clip on its way, and a worker's scratch.
struct Clip {
  const Byte* pixels;
  const std::int64_t* plan;
  std::int64_t stride_c, stride_f, stride_y;
  int frames, planes, height, width;  // those that are shown; planes are channels x frames
  std::int32_t* places;               // 3 rows: where, and the shares of the next pixels
  Step* sides;                        // (height + 2) x width + 2 pixels of kTurns planes
  Step* turned;                       // a row of kTurns planes, a pixel of all after the other
  Byte* bytes;                        // the same
  Byte* rows;                         // kTurns rows
  Byte* levels;                       // planes x height x width
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
  const std::int64_t width = job.out.size[4];
  Byte* const first = record<Byte>(job.scratch, worker);
  clip.places = reinterpret_cast<std::int32_t*>(first);
  clip.sides = reinterpret_cast<Step*>(clip.places + 3 * width);
  clip.turned = clip.sides + kTurns * ((clip.height + 2) * width + 2);
  clip.bytes = reinterpret_cast<Byte*>(clip.turned + kTurns * width);
  clip.rows = clip.bytes + kTurns * width;
  clip.levels = clip.rows + kTurns * width;
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

void find_places(const Clip& clip, int y) {
  const std::int64_t* const map = clip.plan + kMap;
  const double u = static_cast<double>(map[0] + map[2] * y);
  const double v = static_cast<double>(map[3] + map[5] * y);
  const double across_u = static_cast<double>(map[1]);
  const double across_v = static_cast<double>(map[4]);
  const double height = clip.height;
  const double width = clip.width;
  const int count = clip.width;
  std::int32_t* __restrict__ const at = clip.places;
#pragma omp simd
  for (int x = 0; x < count; ++x) {
    const Spot spot = spot_at(u + across_u * x, v + across_v * x, width, height);
    at[x] = spot.y * count + spot.x;
    at[count + x] = spot.right;
    at[2 * count + x] = spot.below;
  }
}

template <int kLane>
void turn_row(const Clip& clip) {
  const Step* __restrict__ const sides = clip.sides;
  const std::int32_t* __restrict__ const at = clip.places;
  Step* __restrict__ const to = clip.turned;
  const int width = clip.width;
  for (int x = 0; x < width; ++x) {
    const Step* __restrict__ const upper = sides + static_cast<std::int64_t>(at[x]) * kLane;
    const Step* __restrict__ const lower = upper + static_cast<std::int64_t>(width) * kLane;
    const Step right = static_cast<Step>(at[width + x]);
    const Step below = static_cast<Step>(at[2 * width + x]);
#pragma omp simd
    for (int l = 0; l < kLane; ++l) {
      to[x * kLane + l] =
          level_between(upper[l], upper[kLane + l], lower[l], lower[kLane + l], right, below);
    }
  }
}

// Levels of `count` planes from `first` on, at most kLane.
template <int kLane>
void turn_planes(const Clip& clip, int first, int count) {
  const std::int64_t width = clip.width;
  Byte* __restrict__ const bytes = clip.bytes;
  for (int y = 0; y < clip.height; ++y) {
    for (int l = 0; l < count; ++l) fetch_row(clip.rows + l * width, clip, first + l, y);
    lay_side_by_side<kLane>(bytes, clip.rows, clip.width);
    Step* __restrict__ const to = clip.sides + y * width * kLane;
#pragma omp simd
    for (std::int64_t i = 0; i < width * kLane; ++i) to[i] = static_cast<Step>(bytes[i] << kSteps);
  }
  std::memset(clip.sides + clip.height * width * kLane, 0,
              static_cast<std::size_t>(2 * width + 2) * kLane * sizeof(Step));
  const std::int64_t plane = clip.height * width;
  for (int y = 0; y < clip.height; ++y) {
    find_places(clip, y);
    turn_row<kLane>(clip);
    const Step* __restrict__ const from = clip.turned;
#pragma omp simd
    for (std::int64_t i = 0; i < width * kLane; ++i) bytes[i] = static_cast<Byte>(from[i]);
    take_apart<kLane>(clip.levels + first * plane + y * width, plane, bytes, count, clip.width);
  }
}

void make_levels(const Clip& clip) {
  if (clip.plan[kTurned] == 0) {
    Byte* to = clip.levels;
    for (int p = 0; p < clip.planes; ++p) {
      for (int y = 0; y < clip.height; ++y, to += clip.width) fetch_row(to, clip, p, y);
    }
    return;
  }
  int first = 0;
  for (; clip.planes - first > 4; first += kTurns) {
    const int rest = clip.planes - first;
    turn_planes<kTurns>(clip, first, rest < kTurns ? rest : kTurns);
  }
  if (first < clip.planes) turn_planes<4>(clip, first, clip.planes - first);
}

Found look_at(const Byte* __restrict__ levels, std::int64_t count, How how) {
  constexpr std::int64_t kPart = 32768;  // whose sums are not too large
  Found found{255, 0, 0, 0};
  for (std::int64_t begin = 0; begin < count; begin += kPart) {
    const std::int64_t end = begin + kPart < count ? begin + kPart : count;
    Byte low = 255;
    Byte high = 0;
#pragma omp simd reduction(min : low) reduction(max : high)
    for (std::int64_t i = begin; i < end; ++i) {
      low = levels[i] < low ? levels[i] : low;
      high = levels[i] > high ? levels[i] : high;
    }
    found.low = low < found.low ? low : found.low;
    found.high = high > found.high ? high : found.high;
    if (how != How::standard) continue;
    std::uint32_t sum = 0;
    std::uint32_t squares = 0;
#pragma omp simd reduction(+ : sum, squares)
    for (std::int64_t i = begin; i < end; ++i) {
      const std::uint32_t level = levels[i];
      sum += level;
      squares += level * level;
    }
    found.sum += sum;
    found.squares += squares;
  }
  return found;
}

void write_plane(float* __restrict__ to, std::int64_t stride, const Byte* __restrict__ levels,
                 std::int64_t count, const Line& line, DType) {
  const Line own = line;
  if (stride == 1) {
#pragma omp simd
    for (std::int64_t i = 0; i < count; ++i) to[i] = scaled(levels[i], own);
  } else {
    for (std::int64_t i = 0; i < count; ++i) to[i * stride] = scaled(levels[i], own);
  }
}

// A half is looked up: there are 256 levels.
void write_plane(std::int16_t* __restrict__ to, std::int64_t stride,
                 const Byte* __restrict__ levels, std::int64_t count, const Line& line,
                 DType kept) {
  std::int16_t halves[256];
  for (int v = 0; v < 256; ++v) halves[v] = half_of(scaled(v, line), kept);
  for (std::int64_t i = 0; i < count; ++i) to[i * stride] = halves[levels[i]];
}

template <typename O>
void write_levels(const Transform& job, const Clip& clip, std::int64_t n) {
  const std::int64_t plane = static_cast<std::int64_t>(clip.height) * clip.width;
  const std::int64_t count = clip.planes * plane;
  Found found{};
  if (looks_at_levels(job.how)) found = look_at(clip.levels, count, job.how);
  for (int p = 0; p < clip.planes; ++p) {
    const int c = p / clip.frames;
    O* const to =
        record<O>(job.out, n) + c * job.out.stride[1] + p % clip.frames * job.out.stride[2];
    const Line line = line_of(job.how, found, count, job.mean[c], job.std[c]);
    write_plane(to, job.out.stride[4], clip.levels + p * plane, plane, line, job.kept);
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
