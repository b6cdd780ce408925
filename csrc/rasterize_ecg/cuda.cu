// CUDA kernel of rasterize_ecg; see contract.h.
//
// A block draws a tile of a page: its threads take the segments that may reach the tile, one each,
// and put their levels into a mask in shared memory by atomic maxima of whole numbers, which no
// order can change; then every thread writes four pixels of a row at a time, once.
#include "core/cuda.cuh"
#include "rasterize_ecg/plan.h"

namespace ecgfast::rasterize_ecg::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kTileX = 64;
constexpr int kTileY = 32;
constexpr int kRun = 4;  // pixels that a thread writes together

// Where a tile begins on its page.
struct Corner {
  int x, y;
};

template <typename T>
__device__ void put_strips(const Draw& job, std::int64_t n, const Corner& corner,
                           Shared<int> mask) {
  const Global<const double> strips = record<const double>(job.strips, n);
  const std::int64_t samples = job.x.size[2];
  for (std::int64_t p = 0; p < job.strips.size[1]; ++p) {
    const Global<const double> strip = strips + p * kStrip;
    const double lead = strip[kLead];
    const double radius = strip[kStripRadius];
    // what reaches beyond the record is not drawn: here nobody could be told
    if (!(lead >= 0) || !(lead < static_cast<double>(job.x.size[1]))) continue;
    if (!(strip[kTop] < corner.y + kTileY) || !(strip[kBottom] > corner.y)) continue;
    const double dx = strip[kDx];
    const double from = (corner.x - radius - strip[kX0]) / dx;
    const double until = (corner.x + kTileX + radius - strip[kX0]) / dx;
    const double first = strip[kFirst] > 0 ? strip[kFirst] : 0;
    const double end = fmin(strip[kFirst] + strip[kCount], static_cast<double>(samples)) - 1;
    const std::int64_t begin = static_cast<std::int64_t>(fmax(first, floor(from)));
    const std::int64_t stop = static_cast<std::int64_t>(fmin(end, ceil(until)));
    const Global<const T> x =
        row<const T>(job.x, n * job.x.size[1] + static_cast<std::int64_t>(lead));
    Segment segment{};
    segment.radius = static_cast<float>(radius);
    segment.top = static_cast<int>(strip[kTop]) - corner.y;
    segment.bottom = static_cast<int>(strip[kBottom]) - corner.y;
    for (std::int64_t t = begin + thread_index(); t < stop; t += kThreads) {
      const double y1 = strip[kY0] - strip[kDy] * static_cast<double>(static_cast<acc_t<T>>(x[t]));
      const double y2 =
          strip[kY0] - strip[kDy] * static_cast<double>(static_cast<acc_t<T>>(x[t + 1]));
      if (!(fabs(y1) < kFarthest) || !(fabs(y2) < kFarthest)) continue;
      const double x1 = strip[kX0] + dx * static_cast<double>(t) - corner.x;
      segment.x1 = static_cast<float>(x1);
      segment.y1 = static_cast<float>(y1 - corner.y);
      segment.x2 = static_cast<float>(x1 + dx);
      segment.y2 = static_cast<float>(y2 - corner.y);
      draw_segment(segment, kTileX, kTileY, [&](int column, int line, int level) {
        atomic_max(mask + (line * kTileX + column), level);
      });
    }
  }
}

__device__ void put_strokes(const Draw& job, std::int64_t n, const Corner& corner,
                            Shared<int> mask) {
  const Global<const double> groups = record<const double>(job.groups, n);
  const Global<const double> strokes = record<const double>(job.strokes, n);
  for (std::int64_t g = 0; g < job.groups.size[1]; ++g) {
    const Global<const double> group = groups + g * kGroup;
    if (!(group[0] < corner.x + kTileX) || !(group[2] > corner.x)) continue;
    if (!(group[1] < corner.y + kTileY) || !(group[3] > corner.y)) continue;
    const std::int64_t begin = static_cast<std::int64_t>(fmax(group[4], 0.0));
    const std::int64_t end =
        static_cast<std::int64_t>(fmin(group[5], static_cast<double>(job.strokes.size[1])));
    for (std::int64_t s = begin + thread_index(); s < end; s += kThreads) {
      const Global<const double> stroke = strokes + s * kStroke;
      const Segment segment{static_cast<float>(stroke[0] - corner.x),
                            static_cast<float>(stroke[1] - corner.y),
                            static_cast<float>(stroke[2] - corner.x),
                            static_cast<float>(stroke[3] - corner.y),
                            static_cast<float>(stroke[4]),
                            0,
                            kTileY};
      draw_segment(segment, kTileX, kTileY, [&](int column, int line, int level) {
        atomic_max(mask + (line * kTileX + column), level);
      });
    }
  }
}

__device__ std::uint8_t stored(float colour, std::uint8_t) {
  return static_cast<std::uint8_t>(colour + 0.5f);
}
template <typename O>
__device__ O stored(float colour, O) {
  return static_cast<O>(colour * (1.0f / 255.0f));
}

// One block a tile. Grid: tiles along x, along y, pages. Reads what of x may show, writes the tile.
template <typename T, typename O>
__global__ void __launch_bounds__(kThreads) draw_kernel(Draw job) {
  ECGFAST_SHARED(int, mask, kTileX* kTileY);
  ECGFAST_SHARED(float, fine, kTileX + kTileY);
  ECGFAST_SHARED(float, coarse, kTileX + kTileY);
  const std::int64_t n = block_index_z();
  const Corner corner{static_cast<int>(block_index()) * kTileX, block_index_y() * kTileY};
  const int width = static_cast<int>(job.out.size[3]);
  const int height = static_cast<int>(job.out.size[2]);
  const Global<const double> look = record<const double>(job.looks, n);

  for (int i = thread_index(); i < kTileX * kTileY; i += kThreads) mask[i] = 0;
  if (thread_index() < kTileX + kTileY) {
    const int i = thread_index();
    const bool across = i < kTileX;
    const std::int64_t at = across ? corner.x + i : corner.y + i - kTileX;
    const double origin = look[across ? kOriginX : kOriginY];
    fine[i] = grid_share(at, origin, look[kFinePitch], look[kFineWidth]);
    coarse[i] = grid_share(at, origin, look[kCoarsePitch], look[kCoarseWidth]);
  }
  sync_block();
  put_strips<T>(job, n, corner, mask);
  put_strokes(job, n, corner, mask);
  sync_block();

  const std::int64_t plane = static_cast<std::int64_t>(width) * height;
  const Global<O> page = record<O>(job.out, n);
  for (int run = thread_index(); run < kTileX * kTileY / kRun; run += kThreads) {
    const int line = run / (kTileX / kRun);
    const int column = run % (kTileX / kRun) * kRun;
    if (corner.y + line >= height || corner.x + column >= width) continue;
    const int count = width - corner.x - column < kRun ? width - corner.x - column : kRun;
    const std::int64_t first =
        static_cast<std::int64_t>(corner.y + line) * width + corner.x + column;
    for (int c = 0; c < static_cast<int>(job.out.size[1]); ++c) {
      const float paper = static_cast<float>(look[kPaper + c]);
      const float thin = static_cast<float>(look[kFine + c]);
      const float thick = static_cast<float>(look[kCoarse + c]);
      const float ink = static_cast<float>(look[kInk + c]);
      O pixels[kRun];
#pragma unroll
      for (int i = 0; i < kRun; ++i) {
        const float of_fine = both(fine[column + i], fine[kTileX + line]);
        const float of_coarse = both(coarse[column + i], coarse[kTileX + line]);
        const float under = lined(paper, thin, thick, of_fine, of_coarse);
        pixels[i] = stored(inked(under, ink, mask[line * kTileX + column + i]), O{});
      }
      const Global<O> out = page + (c * plane + first);
      if constexpr (sizeof(O) == 1) {
        if (count == kRun && width % kRun == 0) {
          store_as(out, static_cast<unsigned>(pixels[0]) | static_cast<unsigned>(pixels[1]) << 8 |
                            static_cast<unsigned>(pixels[2]) << 16 |
                            static_cast<unsigned>(pixels[3]) << 24);
          continue;
        }
      }
      for (int i = 0; i < count; ++i) out[i] = pixels[i];
    }
  }
}

unsigned blocks(std::int64_t count, std::int64_t size) {
  return static_cast<unsigned>((count + size - 1) / size);
}

template <typename O>
void launch_for(const Draw& job, std::uint64_t stream) {
  const Grid grid{blocks(job.out.size[3], kTileX), blocks(job.out.size[2], kTileY),
                  static_cast<unsigned>(job.out.size[0])};
  dispatch_float(job.x.dtype, [&](auto zero) {
    using T = decltype(zero);
    launch<draw_kernel<T, O>>(grid, kThreads, 0, stream, job);
  });
}

}  // namespace

void draw(const Draw& job, std::uint64_t stream) {
  if (job.out.dtype == DType::u8) return launch_for<std::uint8_t>(job, stream);
  dispatch_float(job.out.dtype, [&](auto zero) {
    using O = decltype(zero);
    if constexpr (sizeof(O) < 8) launch_for<O>(job, stream);
  });
}

}  // namespace ecgfast::rasterize_ecg::cuda
