// CUDA kernel of image_augment; see contract.h.
//
// A block takes a tile of the output through all steps in shared memory. Pixels of a page are read
// where they lie: neighbours of a tile read neighbours of the page, which the cache has by then.
#include "core/cuda.cuh"
#include "image_augment/plan.h"

namespace ecgfast::image_augment::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kTile = 32;
constexpr int kRim = kTile + 2 * kMostRadius;  // of a tile that will be blurred
constexpr int kPlane = kRim * kRim;            // of a colour
constexpr int kStride = kTile + 1;             // of a tile's rows: no two of a column in one bank

// A tile: its corner, what of it lies on the output, and in shared memory the record's plan as
// floats and what of it holds from the tile's corner on.
struct Tile {
  int x, y, width, height;
  Shared<float> plan;
  Shared<Slope> slopes;  // of the light and the folds
  Shared<Map> map;
};

constexpr int kSlopes = 1 + kMostFolds;

// The pixel of a page that lies `at` so far into a colour, or paper.
template <typename I>
__device__ float pixel_at(const Apply& job, const Global<const I>& page, int colour,
                          std::int64_t at, bool inside) {
  const float fill = static_cast<float>(job.fill[colour]);
  if (!inside) return fill;
  return level_of(load_readonly(page + (colour * job.pages.stride[1] + at)), fill);
}

__device__ int within(int at, int count) { return at < 0 ? 0 : at < count ? at : count - 1; }

// The levels of all colours, `radius` more than the tile on each side.
template <typename I>
__device__ void fetch(const Apply& job, std::int64_t n, const Tile& tile, int radius,
                      const Shared<float>& levels, int stride) {
  const Global<const I> page = record<const I>(job.pages, n);
  const std::int64_t sy = job.pages.stride[2];
  const std::int64_t sx = job.pages.stride[3];
  const int width = static_cast<int>(job.pages.size[3]);
  const int height = static_cast<int>(job.pages.size[2]);
  const int colours = static_cast<int>(job.out.size[1]);
  const int each = static_cast<int>(tile.plan[kSamples]);
  const Map map = tile.map[0];
  const float step = 1.0f / static_cast<float>(each > 0 ? each : 1);
  const int columns = tile.width + 2 * radius;
  const int count = columns * (tile.height + 2 * radius);
  for (int i = thread_index(); i < count; i += kThreads) {
    const int x = within(tile.x - radius + i % columns, static_cast<int>(job.out.size[3]));
    const int y = within(tile.y - radius + i / columns, static_cast<int>(job.out.size[2]));
    float sums[3] = {0, 0, 0};
    if (each == 0) {
#pragma unroll
      for (int c = 0; c < 3; ++c) {
        const bool inside = x < width && y < height;
        if (c < colours) sums[c] = pixel_at<I>(job, page, c, y * sy + x * sx, inside);
      }
    }
#pragma unroll 1
    for (int s = 0; s < each * each; ++s) {
      const Point point = point_at(
          map, static_cast<float>(x - tile.x) + (static_cast<float>(s % each) + 0.5f) * step,
          static_cast<float>(y - tile.y) + (static_cast<float>(s / each) + 0.5f) * step);
      const int u = floor_of(point.u);
      const int v = floor_of(point.v);
      const int px = map.left + u;
      const int py = map.top + v;
      const bool left = px >= 0 && px < width;
      const bool right = px >= -1 && px < width - 1;
      const bool upper = py >= 0 && py < height;
      const bool lower = py >= -1 && py < height - 1;
      const std::int64_t at = py * sy + px * sx;
#pragma unroll
      for (int c = 0; c < 3; ++c) {
        if (c >= colours) continue;
        sums[c] += between(pixel_at<I>(job, page, c, at, left && upper),
                           pixel_at<I>(job, page, c, at + sx, right && upper),
                           pixel_at<I>(job, page, c, at + sy, left && lower),
                           pixel_at<I>(job, page, c, at + sy + sx, right && lower),
                           point.u - static_cast<float>(u), point.v - static_cast<float>(v));
      }
    }
#pragma unroll
    for (int c = 0; c < 3; ++c) {
      if (c >= colours) continue;
      levels[c * kPlane + i / columns * stride + i % columns] = sums[c] * (step * step);
    }
  }
}

// Along x into `rows`, along y into the tile, which takes the place of what was blurred.
__device__ void blur(const Tile& tile, int radius, const Shared<float>& levels,
                     const Shared<float>& rows) {
  for (int i = thread_index(); i < kTile * (tile.height + 2 * radius); i += kThreads) {
    const Shared<float> from = levels + (i / kTile * kRim + i % kTile + radius);
    if (i % kTile >= tile.width) continue;
    float sum = tile.plan[kWeights] * from[0];
    for (int k = 1; k <= radius; ++k) {
      sum += tile.plan[kWeights + k] * (from[-k] + from[k]);
    }
    rows[i] = sum;
  }
  sync_block();
  for (int i = thread_index(); i < kTile * tile.height; i += kThreads) {
    const Shared<float> from = rows + (i + radius * kTile);
    if (i % kTile >= tile.width) continue;
    float sum = tile.plan[kWeights] * from[0];
    for (int k = 1; k <= radius; ++k) {
      sum += tile.plan[kWeights + k] * (from[-k * kTile] + from[k * kTile]);
    }
    levels[i / kTile * kStride + i % kTile] = sum;
  }
  sync_block();
}

__device__ float shade_at(const Tile& tile, int x, int y) {
  const float dx = static_cast<float>(x);
  const float dy = static_cast<float>(y);
  float factor = lit(tile.slopes[0], dx, dy);
  for (int f = 1; f < kSlopes; ++f) {
    const Slope fold = tile.slopes[f];
    if (fold.depth != 0) factor *= folded(fold, dx, dy);
  }
  return factor;
}

// Light, folds, tone and noise: the four pixels of a row that share a counter.
__device__ void colour_pixels(const Apply& job, const Global<const double>& plan, const Tile& tile,
                              bool shaded, const Shared<float>& levels) {
  const int y = thread_index() / 8;
  const int x = thread_index() % 8;
  if (y >= tile.height) return;
  float factor[4];
#pragma unroll
  for (int w = 0; w < 4; ++w) factor[w] = shaded ? shade_at(tile, x + 8 * w, y) : 1.0f;
  const float sd = tile.plan[kNoise];
  const float gamma = tile.plan[kGamma];
#pragma unroll 1
  for (int c = 0; c < static_cast<int>(job.out.size[1]); ++c) {
    float noise[4] = {0, 0, 0, 0};
    if (sd != 0) {
      PhiloxWords counter =
          noise_counter(plan, tile.x, tile.y + y, static_cast<int>(job.out.size[3]), c);
      counter.word[0] += static_cast<std::uint32_t>(x);
      const PhiloxWords words = philox(counter, noise_key(plan));
      const Normals a = normals(words.word[0], words.word[1]);
      const Normals b = normals(words.word[2], words.word[3]);
      noise[0] = a.first;
      noise[1] = a.second;
      noise[2] = b.first;
      noise[3] = b.second;
    }
#pragma unroll
    for (int w = 0; w < 4; ++w) {
      if (x + 8 * w >= tile.width) continue;
      const int at = c * kPlane + y * kStride + x + 8 * w;
      float level = levels[at];
      if (shaded) level = clipped(level * factor[w]);
      if (tile.plan[kToned] != 0) {
        level = clipped(level * tile.plan[kFactor + c] + tile.plan[kAdded + c]);
        if (gamma != 1) level = toned(level, gamma);
      }
      if (sd != 0) level = clipped(level + sd * noise[w]);
      levels[at] = level;
    }
  }
}

// Blocks of 8 x 8: a thread takes a row of one, then a column, then a row.
__device__ void lose(const Apply& job, const Tile& tile, const Shared<float>& levels) {
  const int colours = static_cast<int>(job.out.size[1]);
  for (int i = thread_index(); i < kTile * kTile; i += kThreads) {
    const int y = i / kTile;
    const int x = i % kTile;
    if (y < tile.height && x < tile.width) continue;
    const int from = within(y, tile.height) * kStride + within(x, tile.width);
    for (int c = 0; c < colours; ++c) {
      levels[c * kPlane + y * kStride + x] = static_cast<float>(levels[c * kPlane + from]);
    }
  }
  sync_block();
  for (int i = thread_index(); i < kTile * kTile; i += kThreads) {
    const int at = i / kTile * kStride + i % kTile;
    float first = levels[at];
    if (colours == 3) {
      float second = levels[kPlane + at];
      float third = levels[2 * kPlane + at];
      to_luma(first, second, third);
      levels[kPlane + at] = second;
      levels[2 * kPlane + at] = third;
    } else {
      first -= 128.0f;
    }
    levels[at] = first;
  }
  sync_block();
  const int vectors = colours * kTile * (kTile / 8);
  for (int i = thread_index(); i < vectors; i += kThreads) {
    const int part = i / kTile;
    const Shared<float> at = levels + (part / 4 * kPlane + i % kTile * kStride + part % 4 * 8);
    float v[8];
#pragma unroll
    for (int k = 0; k < 8; ++k) v[k] = at[k];
    transform8(v);
#pragma unroll
    for (int k = 0; k < 8; ++k) at[k] = v[k];
  }
  sync_block();
  for (int i = thread_index(); i < vectors; i += kThreads) {
    const int part = i / kTile;
    const Shared<float> at = levels + (part / 4 * kPlane + part % 4 * 8 * kStride + i % kTile);
    const Shared<float> steps = tile.plan + (kTables + (part < 4 ? 0 : 64) + i % 8);
    float v[8];
#pragma unroll
    for (int k = 0; k < 8; ++k) v[k] = at[k * kStride];
    transform8(v);
#pragma unroll
    for (int k = 0; k < 8; ++k) v[k] = stepped(v[k], static_cast<float>(steps[8 * k]));
    transform_back8(v);
#pragma unroll
    for (int k = 0; k < 8; ++k) at[k * kStride] = v[k];
  }
  sync_block();
  for (int i = thread_index(); i < vectors; i += kThreads) {
    const int part = i / kTile;
    const Shared<float> at = levels + (part / 4 * kPlane + i % kTile * kStride + part % 4 * 8);
    float v[8];
#pragma unroll
    for (int k = 0; k < 8; ++k) v[k] = at[k];
    transform_back8(v);
#pragma unroll
    for (int k = 0; k < 8; ++k) at[k] = v[k];
  }
  sync_block();
  for (int i = thread_index(); i < kTile * kTile; i += kThreads) {
    const int at = i / kTile * kStride + i % kTile;
    float first = levels[at];
    if (colours == 3) {
      float second = levels[kPlane + at];
      float third = levels[2 * kPlane + at];
      from_luma(first, second, third);
      levels[kPlane + at] = clipped(second);
      levels[2 * kPlane + at] = clipped(third);
    } else {
      first += 128.0f;
    }
    levels[at] = clipped(first);
  }
  sync_block();
}

// One block a tile. Grid: tiles along x, along y, pages. Reads what of a page shows in the tile,
// writes the tile.
template <typename I, typename O>
__global__ void __launch_bounds__(kThreads, 4) apply_kernel(Apply job) {
  ECGFAST_SHARED(float, levels, 3 * kPlane);
  ECGFAST_SHARED(float, rows, kRim* kTile);
  ECGFAST_SHARED(float, numbers, kPlan);
  ECGFAST_SHARED(Slope, slopes, kSlopes);
  ECGFAST_SHARED(Map, map, 1);
  const std::int64_t n = block_index_z();
  const int width = static_cast<int>(job.out.size[3]);
  const int height = static_cast<int>(job.out.size[2]);
  const int x = block_index() * kTile;
  const int y = block_index_y() * kTile;
  const Tile tile{x,
                  y,
                  width - x < kTile ? width - x : kTile,
                  height - y < kTile ? height - y : kTile,
                  numbers,
                  slopes,
                  map};
  const int colours = static_cast<int>(job.out.size[1]);
  const Global<const double> plan = record<const double>(job.plan, n);
  const bool plain = is_plain(plan) && width == job.pages.size[3] && height == job.pages.size[2];
  if (!plain) {
    for (int i = thread_index(); i < kPlan; i += kThreads) {
      numbers[i] = static_cast<float>(plan[i]);
    }
    const int f = thread_index() / 32;  // a warp each
    if (thread_index() % 32 == 0 && f < kSlopes) slopes[f] = slope_at(plan, kLight + 4 * f, x, y);
    if (thread_index() == 32 * kSlopes) map[0] = plan[kSamples] > 0 ? map_at(plan, x, y) : Map{};
    sync_block();
    const int radius = static_cast<int>(tile.plan[kRadius]);
    fetch<I>(job, n, tile, radius, levels, radius > 0 ? kRim : kStride);
    sync_block();
    for (int c = 0; radius > 0 && c < colours; ++c) blur(tile, radius, levels + c * kPlane, rows);
    bool shaded = false;
    for (int s = 0; s < kSlopes; ++s) shaded = shaded || tile.plan[kLight + 4 * s + 3] != 0;
    if (shaded || tile.plan[kToned] != 0 || tile.plan[kNoise] != 0) {
      colour_pixels(job, plan, tile, shaded, levels);
      sync_block();
    }
    if (tile.plan[kQuality] != 0) lose(job, tile, levels);
  }
  const Global<const I> page = record<const I>(job.pages, n);
  const Global<O> out = record<O>(job.out, n);
  for (int c = 0; c < colours; ++c) {
    const float fill = static_cast<float>(job.fill[c]);
    const float scale = static_cast<float>(job.scale[c]);
    const float shift = static_cast<float>(job.shift[c]);
    for (int i = thread_index(); i < kTile * tile.height; i += kThreads) {
      const int dx = i % kTile;
      const int dy = i / kTile;
      if (dx >= tile.width) continue;
      const std::int64_t to = (static_cast<std::int64_t>(c) * height + y + dy) * width + x + dx;
      if (plain) {
        const I value = page[c * job.pages.stride[1] + (y + dy) * job.pages.stride[2] +
                             (x + dx) * job.pages.stride[3]];
        out[to] = passed(value, fill, scale, shift, O{});
      } else {
        const float level = levels[c * kPlane + dy * kStride + dx];
        out[to] = stored(level, scale, shift, O{});
      }
    }
  }
}

unsigned blocks(std::int64_t count) { return static_cast<unsigned>((count + kTile - 1) / kTile); }

template <typename Body>
void dispatch_pixels(DType dtype, const Body& body) {
  if (dtype == DType::u8) return body(std::uint8_t{});
  dispatch_float(dtype, [&](auto zero) {
    if constexpr (sizeof(zero) < 8) body(zero);
  });
}

}  // namespace

void apply(const Apply& job, std::uint64_t stream) {
  const Grid grid{blocks(job.out.size[3]), blocks(job.out.size[2]),
                  static_cast<unsigned>(job.out.size[0])};
  dispatch_pixels(job.pages.dtype, [&](auto in) {
    dispatch_pixels(job.out.dtype, [&](auto out) {
      launch<apply_kernel<decltype(in), decltype(out)>>(grid, kThreads, 0, stream, job);
    });
  });
}

}  // namespace ecgfast::image_augment::cuda
