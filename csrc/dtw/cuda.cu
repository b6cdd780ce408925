// CUDA kernels of dtw; see contract.h.
//
// A block compares one record of x with several of y. kSpan lanes share a pair: each holds kColumns
// columns of y with all their leads in registers, and the rows of x pass by, a lane one row behind
// its left neighbour, whose last column comes by a shuffle. That is a pass; the next one takes the
// next kSpan * kColumns columns, and what stands at the seam is kept in `edge`, which the last lane
// of the pair alone writes and reads. The rows of x are staged for all pairs of the block in a
// ring.
#include "core/cuda.cuh"
#include "dtw/contract.h"

namespace ecgfast::dtw::cuda {
namespace {

constexpr int kRing = 128;  // rows of x in shared memory ...
constexpr int kChunk = 32;  // ... so many of them copied at a time, two chunks ahead
constexpr int kWrap = 4;    // rows that stand behind the ring again: 4 steps in a row never wrap
constexpr float kFar = __builtin_inff();

// What differs between launches: a band leaves few rows to a pass, so that short ones waste less.
template <int kLeadsPadded, bool kIsBanded>
struct Shape {
  static constexpr int kLeads = kLeadsPadded;
  static constexpr bool kBanded = kIsBanded;
  static constexpr int kColumns = kLeads > 12 ? 2 : 4;  // 48 registers
  static constexpr int kSpan = kBanded ? 8 : 32;
  static constexpr int kThreads = kBanded || kLeads > 12 ? 256 : 512;
  static constexpr int kBlocks = kLeads > 12 ? 1 : 512 / kThreads;  // at once: 128 registers
  static constexpr int kWidth = kSpan * kColumns;
  static constexpr int kPairs = kThreads / kSpan;
};

// `norms`: of both samples together, for Cost::expanded, where b holds -2 y.
template <Cost kCost, int kLeads>
__device__ __forceinline__ float local_cost(const float (&a)[kLeads], const float (&b)[kLeads],
                                            float norms) {
  float cost = kCost == Cost::expanded ? norms : 0.0f;
#pragma unroll
  for (int l = 0; l < kLeads; ++l) {
    if (kCost == Cost::expanded) {
      cost = fmaf(b[l], a[l], cost);
    } else {
      const float apart = a[l] - b[l];
      cost = kCost == Cost::l1 ? cost + fabsf(apart) : fmaf(apart, apart, cost);
    }
  }
  if (kCost == Cost::expanded) return fmaxf(cost, 0.0f);  // rounding may go below
  return kCost == Cost::euclidean ? sqrt_approx(cost) : cost;
}

__device__ int length_of(const View& lengths, std::int64_t n, std::int64_t samples) {
  return static_cast<int>(lengths.size[0] == 0 ? samples : global<const std::int64_t>(lengths)[n]);
}

// With y = x record i meets i + 1 to i + N / 2 (mod N), so that each has the same work.
__host__ __device__ std::int64_t partners(const Forward& job, std::int64_t i) {
  const std::int64_t m = job.distance.size[1];
  return job.same ? (m - 1) / 2 + (m % 2 == 0 && i < m / 2) : m;
}

// Grid: blocks from `first_block` on; job.groups of them, of S::kPairs pairs each, for a record of
// x. Reads both forms, writes distance; keeps edges in scratch.
template <Cost kCost, typename S>
__global__ void __launch_bounds__(S::kThreads, S::kBlocks)
    forward_kernel(Forward job, int first_block, int groups) {
  constexpr int kLeads = S::kLeads;
  constexpr int kColumns = S::kColumns;
  constexpr int kSpan = S::kSpan;
  constexpr int kWidth = S::kWidth;
  constexpr bool kNorms = kCost == Cost::expanded;
  const Shared<float> ring = dynamic_shared<float>();
  const Shared<float> ring_norms = ring + (kRing + kWrap) * kLeads;  // beside it, if kNorms
  const int lane = lane_index() % kSpan;
  const int left_lane = (lane + kSpan - 1) % kSpan;
  const int mine = thread_index() / kSpan;
  const bool tail = lane == kSpan - 1;

  const int block = first_block + block_index();
  const int i = block / groups;
  const int slot = block % groups * S::kPairs + mine;
  const int records = static_cast<int>(job.distance.size[1]);
  const bool live = slot < partners(job, i);
  const int spare = job.same ? i : 0;  // lanes without a pair compute one that is not written
  const int j = !live ? spare : job.same ? (i + 1 + slot) % records : slot;
  const int n = length_of(job.x_length, i, job.x_samples);
  const int m = length_of(job.y_length, j, job.y_samples);
  const Band band = band_of(job, n, m);
  const int lo = static_cast<int>(band.lo);
  const int hi = static_cast<int>(band.hi);
  // What all pairs of the block need: their bands together.
  const int most = static_cast<int>(job.y_samples);
  const int lowest =
      static_cast<int>(band_of(job, n, most).lo - (job.y_length.size[0] > 0 && n > 1 ? n - 1 : 0));
  const int highest = static_cast<int>(band_of(job, n, most).hi);

  // Row r lies at edge[r + 3]: four rows read ahead and four written are both aligned.
  const int edge_size = static_cast<int>(job.scratch.size[1]);
  const auto edge = update<float>(job.scratch) +
                    (static_cast<std::int64_t>(block_index()) * S::kPairs + mine) * edge_size;
  if (tail) {
    for (int k = 0; k < edge_size; k += 4) store_as(edge + k, make_float4(kFar, kFar, kFar, kFar));
  }
  const int last_pass = (m - 1) / kWidth;
  const int last_lane = (m - 1) % kWidth / kColumns;
  const int last_column = (m - 1) % kColumns;
  const auto x = record<const float>(job.rows, i);
  const auto y = record<const float>(job.columns, j);
  const auto x_norms = x + (job.x_samples + kBefore + kAfter) * kLeads;
  const auto y_norms = y + (job.y_samples + kMostColumns) * kLeads;
  float answer = kFar;

  for (int pass = 0; pass * kWidth < most; ++pass) {
    const int left = pass * kWidth;
    const int first = S::kBanded ? max(0, left - highest) & ~3 : 0;
    const int last = S::kBanded ? min(n - 1, left + kWidth - 1 - lowest) : n - 1;
    float column[kColumns][kLeads];
    float column_norm[kColumns];
    float cost[kColumns];
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
      const std::int64_t at = left + lane * kColumns + c;
      const auto from = y + at * kLeads;
      column_norm[c] = kNorms ? static_cast<float>(y_norms[at]) : 0.0f;
#pragma unroll
      for (int l = 0; l < kLeads; l += 4) {
        const float4 four = load_as<float4>(from + l);
        column[c][l] = four.x;
        column[c][l + 1] = four.y;
        column[c][l + 2] = four.z;
        column[c][l + 3] = four.w;
      }
      cost[c] = kFar;
    }
    // The last lane feeds the first one what the pass before left, then writes its own column.
    float diagonal =
        shuffle(tail && first > 0 ? static_cast<float>(edge[first + 2]) : kFar, left_lane, kSpan);
    float shown = tail ? static_cast<float>(edge[first + 3]) : kFar;
    if (lane > 0 || first == 0) diagonal = pass == 0 && lane == 0 ? 0.0f : kFar;

    // `at`: the row of x in the ring.
    const auto step = [&](int at, float inject, int s, bool masked) {
      const auto row = ring + at * kLeads;
      const float row_norm = kNorms ? static_cast<float>(ring_norms[at]) : 0.0f;
      float a[kLeads];
#pragma unroll
      for (int l = 0; l < kLeads; l += 4) {
        const float4 four = load_as<float4>(row + l);
        a[l] = four.x;
        a[l + 1] = four.y;
        a[l + 2] = four.z;
        a[l + 3] = four.w;
      }
      const float beside = shuffle(shown, left_lane, kSpan);
      float back = diagonal;
      float before = beside;
#pragma unroll
      for (int c = 0; c < kColumns; ++c) {
        float value = local_cost<kCost>(a, column[c], row_norm + column_norm[c]) +
                      least_of(cost[c], back, before);
        if (S::kBanded && masked) {
          const int offset = left + lane * (kColumns + 1) + c - s;  // column - row
          if (offset < lo || offset > hi) value = kFar;
        }
        back = cost[c];
        cost[c] = value;
        before = value;
        if (masked && c == last_column && s - lane == n - 1 && pass == last_pass &&
            lane == last_lane) {
          answer = value;
        }
      }
      diagonal = beside;
      shown = tail ? inject : cost[kColumns - 1];
    };

    // Chunk q of the rows from `first` on, counted with the kBefore that stand in front.
    const auto fetch = [&](int q) {
      const int at = kChunk * q % kRing;
      const int rows = at == 0 ? kChunk + kWrap : kChunk;
      const auto from = x + static_cast<std::int64_t>(first + kChunk * q) * kLeads;
      for (int t = thread_index() * 4; t < rows * kLeads; t += S::kThreads * 4) {
        const bool again = t >= kChunk * kLeads;
        copy_async<16>(ring + ((again ? kRing - kChunk : at) * kLeads + t),
                       from + (again ? t - kChunk * kLeads : t));
      }
      if (kNorms && thread_index() * 4 < rows) {
        const int t = thread_index() * 4;
        const bool again = t >= kChunk;
        copy_async<16>(ring_norms + ((again ? kRing - kChunk : at) + t),
                       x_norms + (first + kChunk * q + (again ? t - kChunk : t)));
      }
      copy_commit();
    };

    const int total = last - first + kSpan;
    sync_block();  // the pass before may still read the ring
    fetch(0);
    fetch(1);
    for (int k = 0; k * kChunk < total; ++k) {
      copy_wait<0>();
      sync_block();
      if ((k + 1) * kChunk < total) fetch(k + 2);
      const int begin = first + k * kChunk;
      const bool inside =
          !S::kBanded || (left + (kSpan - 1) * (kColumns + 1) + kColumns - 1 - begin <= hi &&
                          left - (begin + kChunk - 1) >= lo);
      if (all_lanes(begin + kChunk <= n - 1 && inside)) {
#pragma unroll 1
        for (int u = 0; u < kChunk; u += 4) {
          const int at = (k * kChunk + u + kBefore - lane) & (kRing - 1);
          float4 in = make_float4(0, 0, 0, 0);
          float4 out;
          if (tail) in = load_as<float4>(edge + (begin + u + 4));
          step(at, in.x, 0, false);
          out.x = cost[kColumns - 1];
          step(at + 1, in.y, 0, false);
          out.y = cost[kColumns - 1];
          step(at + 2, in.z, 0, false);
          out.z = cost[kColumns - 1];
          step(at + 3, in.w, 0, false);
          out.w = cost[kColumns - 1];
          if (tail && begin + u + 3 >= lane) store_as(edge + (begin + u - lane + 3), out);
        }
      } else {
#pragma unroll 1
        for (int s = begin; s < min(begin + kChunk, first + total); ++s) {
          const int at = (s - first + kBefore - lane) & (kRing - 1);
          const float in = tail ? static_cast<float>(edge[s + 4]) : 0.0f;
          step(at, in, s, true);
          if (tail && s >= lane) edge[s - lane + 3] = cost[kColumns - 1];
        }
      }
    }
    copy_wait<0>();
  }

  const auto x_finite = global<const std::int32_t>(job.x_finite);
  const auto out = global<float>(job.distance);
  const float nan = from_bits(0x7fc00000u);
  if (live && lane == last_lane) {
    const bool finite = x_finite[i] != 0 && global<const std::int32_t>(job.y_finite)[j] != 0;
    const float value = !finite ? nan : job.root ? sqrt(answer) : answer;
    out[static_cast<std::int64_t>(i) * records + j] = value;
    if (job.same) out[static_cast<std::int64_t>(j) * records + i] = value;
  }
  if (job.same && block % groups == 0 && thread_index() == 0) {
    out[static_cast<std::int64_t>(i) * (records + 1)] = x_finite[i] != 0 ? 0.0f : nan;
  }
}

constexpr int kPrepareThreads = 256;

// One block a record. Grid: records. Reads x, writes rows and columns, time-major with zeros for
// leads that are not there, norms behind the last step, and whether all is finite.
__global__ void __launch_bounds__(kPrepareThreads) prepare_kernel(Prepare job) {
  const int n = block_index();
  const std::int64_t leads = job.x.size[1];
  const int length = length_of(job.length, n, job.x.size[2]);
  const auto x = record<const float>(job.x, n);
  const auto sample = [&](std::int64_t t, std::int64_t l) {
    return l < leads ? static_cast<float>(x[l * job.x.stride[1] + t]) : 0.0f;
  };
  int gaps = 0;
  for (std::int64_t l = 0; l < leads; ++l) {
    for (int t = thread_index(); t < length; t += kPrepareThreads) {
      gaps += !(fabsf(sample(t, l)) < kFar);
    }
  }
  gaps = block_sum<kPrepareThreads>(gaps);
  if (thread_index() == 0) global<std::int32_t>(job.finite)[n] = gaps == 0;

  const auto fill = [&](const View& to, std::int64_t steps, int before, float outside,
                        float factor) {
    const auto out = record<float>(to, n);
    const std::int64_t padded = to.size[2];
    for (std::int64_t k = thread_index(); k < steps * padded; k += kPrepareThreads) {
      const std::int64_t t = k / padded - before;
      const std::int64_t l = k % padded;
      const float value = t >= 0 && t < length ? factor * sample(t, l) : outside;
      // -2 y overflows long after its norm has: any number will do
      out[k] = l < leads && (!job.expanded || fabsf(value) < kFar) ? value : 0.0f;
    }
    // norms, if there is room for them
    for (std::int64_t k = thread_index(); k < (to.size[1] - steps) * padded; k += kPrepareThreads) {
      const std::int64_t t = k - before;
      const bool inside = t >= 0 && t < length;
      float norm = inside ? 0.0f : kFar;
      for (std::int64_t l = 0; inside && l < leads; ++l) {
        norm = fmaf(sample(t, l), sample(t, l), norm);
      }
      out[steps * padded + k] = norm;
    }
  };
  const std::int64_t samples = job.x.size[2];
  // Never the same infinity on both sides: their difference would be NaN. With norms these alone
  // are infinite.
  const float outside = job.expanded ? 0.0f : kFar;
  if (job.rows.size[0] > 0) fill(job.rows, samples + kBefore + kAfter, kBefore, outside, 1.0f);
  if (job.columns.size[0] > 0) {
    fill(job.columns, samples + kMostColumns, 0, -outside, job.expanded ? -2.0f : 1.0f);
  }
}

template <Cost kCost, typename S>
void forward_blocks(const Forward& job, std::uint64_t stream) {
  const std::int64_t most = job.same ? job.distance.size[1] / 2 : job.distance.size[1];
  const std::int64_t groups = most > S::kPairs ? (most + S::kPairs - 1) / S::kPairs : 1;
  const std::int64_t blocks = job.distance.size[0] * groups;
  const std::int64_t together = job.scratch.size[0] / S::kPairs;
  for (std::int64_t first = 0; first < blocks; first += together) {
    const std::int64_t rest = blocks - first;
    const Grid grid{static_cast<unsigned>(rest < together ? rest : together)};
    constexpr auto shared =
        (kRing + kWrap) * (S::kLeads + (kCost == Cost::expanded)) * sizeof(float);
    launch<forward_kernel<kCost, S>>(grid, S::kThreads, shared, stream, job,
                                     static_cast<int>(first), static_cast<int>(groups));
  }
}

template <Cost kCost, int kLeads>
void forward_leads(const Forward& job, std::uint64_t stream) {
  job.banded ? forward_blocks<kCost, Shape<kLeads, true>>(job, stream)
             : forward_blocks<kCost, Shape<kLeads, false>>(job, stream);
}

template <Cost kCost>
void forward_cost(const Forward& job, std::uint64_t stream) {
  switch (job.rows.size[2]) {
    case 4:
      return forward_leads<kCost, 4>(job, stream);
    case 8:
      return forward_leads<kCost, 8>(job, stream);
    case 12:
      return forward_leads<kCost, 12>(job, stream);
    default:
      return forward_leads<kCost, 24>(job, stream);
  }
}

}  // namespace

void prepare(const Prepare& job, std::uint64_t stream) {
  const Grid grid{static_cast<unsigned>(job.x.size[0])};
  launch<prepare_kernel>(grid, kPrepareThreads, 0, stream, job);
}

void forward(const Forward& job, std::uint64_t stream) {
  if (job.cost == Cost::sqeuclidean) return forward_cost<Cost::sqeuclidean>(job, stream);
  if (job.cost == Cost::euclidean) return forward_cost<Cost::euclidean>(job, stream);
  if (job.cost == Cost::l1) return forward_cost<Cost::l1>(job, stream);
  forward_cost<Cost::expanded>(job, stream);
}

}  // namespace ecgfast::dtw::cuda
