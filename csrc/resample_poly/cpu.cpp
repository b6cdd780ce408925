// CPU kernel of resample_poly, compiled once for each instruction set; see contract.h.
#include "core/dispatch.h"
#include "core/gaps_lanes.h"
#include "core/polyphase_lanes.h"
#include "resample_poly/contract.h"

namespace ecgfast::resample_poly::ECGFAST_ISA {
namespace {

// What stands beside one signal, whose end may be a gap.
template <typename T>
void set_edges(const Resample& job, const T* x, Edges<T>* edges, int lane) {
  const std::int64_t samples = job.x.size[2];
  T ends[2] = {x[0], x[samples - 1]};
  if (job.on_gap != OnGap::keep) {
    fill_gaps(x, samples, job.on_gap, &ends[0], 1, 0, 1);
    fill_gaps(x, samples, job.on_gap, &ends[1], 1, samples - 1, samples);
  }
  const bool line = job.outside == Outside::line;
  edges->left[lane] = ends[0];
  edges->right[lane] = ends[1];
  edges->slope[lane] = line ? (ends[1] - ends[0]) / static_cast<T>(samples - 1) : T(0);
}

// Outputs [begin, end) of the rows from first_row on, as many as stand side by side.
template <typename T>
void resample_group(const Resample& job, std::int64_t first_row, int count, std::int64_t tile,
                    T* scratch) {
  const std::int64_t samples = job.x.size[2];
  const std::int64_t begin = tile * job.tile;
  const std::int64_t end = tile_end(job, begin);
  const Held held = held_by(job, begin, end);
  const std::int64_t from = held.begin < 0 ? 0 : held.begin;
  const std::int64_t to = held.end > samples ? samples : held.end;
  T* const x = scratch;
  T* const y = scratch + (held.end - held.begin) * kGroup;

  const T* in[kGroup];
  T* out[kGroup];
  for (int lane = 0; lane < kGroup; ++lane) {
    const std::int64_t r = first_row + (lane < count ? lane : 0);
    in[lane] = row<T>(job.x, r) + from;
    out[lane] = row<T>(job.y, r) + begin;
  }
  T* const inside = x + (from - held.begin) * kGroup;
  if (to > from) to_lanes(in, to - from, inside);

  std::int32_t own[kGroup] = {};
  std::int32_t other[kGroup] = {};
  const bool here = count_gaps(x + (held.own - held.begin) * kGroup, held.own_end - held.own, own);
  const bool before = count_gaps(inside, held.own - from, other);
  const bool behind =
      count_gaps(x + (held.own_end - held.begin) * kGroup, to - held.own_end, other);
  std::int32_t* const gaps = static_cast<std::int32_t*>(job.gaps.data);
  for (int lane = 0; lane < count; ++lane) {
    gaps[(first_row + lane) * job.gaps.size[1] + tile] = own[lane];
  }
  if (job.on_gap != OnGap::keep && (here || before || behind)) {
    for (int lane = 0; lane < count; ++lane) {
      if (own[lane] + other[lane] == 0) continue;
      fill_gaps(in[lane] - from, samples, job.on_gap, inside + lane, kGroup, from, to);
    }
  }

  Edges<T> edges = {};
  if (job.outside != Outside::zeros && (from > held.begin || to < held.end)) {
    for (int lane = 0; lane < kGroup; ++lane) set_edges(job, in[lane] - from, &edges, lane);
  }
  extend(edges, samples, x, held.begin, held.end);
  resample_lanes(job.filter, x, held.begin, begin, end, y);
  from_lanes(y, end - begin, out, count);
}

}  // namespace

void forward(const Resample& job, Range items) {
  dispatch_float(job.x.dtype, [&](auto zero) {
    using T = decltype(zero);
    T* const scratch = reinterpret_cast<T*>(static_cast<char*>(job.scratch.data) +
                                            items.worker * job.scratch.size[1]);
    const std::int64_t rows = job.x.size[0] * job.x.size[1];
    const std::int64_t tiles = tiles_of(job);
    for (std::int64_t item = items.begin; item < items.end; ++item) {
      const std::int64_t first = item / tiles * kRows;
      const std::int64_t end = first + kRows < rows ? first + kRows : rows;
      for (std::int64_t r = first; r < end; r += kGroup) {
        const std::int64_t left = end - r;
        resample_group(job, r, static_cast<int>(left < kGroup ? left : kGroup), item % tiles,
                       scratch);
      }
    }
  });
}

}  // namespace ecgfast::resample_poly::ECGFAST_ISA
