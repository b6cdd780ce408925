// CUDA kernels of augment; see contract.h.
#include "augment/draw.h"
#include "core/cuda.cuh"

namespace ecgfast::augment::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kSamples = 4;  // a thread: those of one counter of the noise
constexpr int kCounters = 16;

// One thread a record. Grid: N / 128. Reads an id, writes a row of the plan.
__global__ void __launch_bounds__(kThreads, 4) draw_kernel(Draw job) {
  const std::int64_t n = static_cast<std::int64_t>(block_index()) * kThreads + thread_index();
  if (n >= job.plan.size[0]) return;
  const PhiloxKey key = philox_key(global<const std::int64_t>(job.seed)[0]);
  draw_record(record<double>(job.plan, n), job, record<const std::int64_t>(job.record_ids, n)[0],
              key);
}

// What all leads of a record share at one sample of y.
struct Moment {
  float added, sd, share;
  int index;  // of x; -1 for outside
  bool masked;
};

template <typename Plan>
__device__ static inline Moment moment_at(const Apply& job, const Plan& plan, const Columns& column,
                                          std::int64_t t) {
  Moment moment{};
  const std::int64_t last = job.x.size[2] - 1;
  const std::int64_t s = whole(plan[kFirst]) + t;
  moment.index = -1;
  if (s >= 0 && s <= last) {
    moment.index = static_cast<int>(s);
    if (job.spec.warp > 0) {
      const std::int64_t pieces = whole(job.spec.knots) + 1;
      const Piece piece = piece_of(plan + column.knots, piece_at(s, pieces, last), pieces, last);
      const std::int64_t position = piece.at + piece.step * (s - piece.begin);
      moment.index = static_cast<int>(position >> 32);
      moment.share = share_of(position);
    }
  }
  const float mains = static_cast<float>(plan[kMains]);
  if (mains != 0) {
    moment.added = mains * sine_at(turn_of(job.spec.mains_turns), turn_of(plan[kMainsPhase]), t);
  }
  const float wander = static_cast<float>(plan[kWander] / job.spec.sines);
  if (plan[kWander] != 0) {
    for (std::int64_t i = column.sines; i < column.bursts; i += 2) {
      moment.added += wander * sine_at(turn_of(plan[i]), turn_of(plan[i + 1]), t);
    }
  }
  float e = 0;
  for (std::int64_t i = column.bursts; i < column.masks; i += 2) {
    const std::int64_t since = t - whole(plan[i]);
    const std::int64_t length = whole(plan[i + 1]);
    if (since >= 0 && since < length) e = fmaxf(e, envelope(since, length));
  }
  const float noise = static_cast<float>(plan[kNoise]);
  e *= static_cast<float>(plan[kEmg]);
  moment.sd = sqrtf(noise * noise + e * e);
  for (std::int64_t i = column.masks; i < column.leads; i += 2) {
    const std::int64_t since = t - whole(plan[i]);
    moment.masked |= since >= 0 && since < whole(plan[i + 1]);
  }
  return moment;
}

// One block a record and 512 samples of y. Grid: N, S / 512. Reads these samples of x in all leads
// and a row of the plan, which stays in cache, writes y.
template <typename T>
__global__ void __launch_bounds__(kThreads, 4) apply_kernel(Apply job) {
  using A = acc_t<T>;
  const std::int64_t n = block_index();
  const std::int64_t counter =
      static_cast<std::int64_t>(block_index_y()) * kThreads + thread_index();
  const std::int64_t from = counter / kCounters * (kSamples * kCounters) + counter % kCounters;
  const std::int64_t leads = job.x.size[1];
  const std::int64_t length = job.y.size[2];
  const int last = static_cast<int>(job.x.size[2] - 1);
  if (from >= length) return;

  const Columns column = columns_of(job.spec, leads);
  const Global<const double> plan = record<const double>(job.plan, n);
  const std::int64_t id = record<const std::int64_t>(job.record_ids, n)[0];
  const PhiloxKey key = philox_key(global<const std::int64_t>(job.seed)[0]);
  const bool noisy = plan[kNoise] != 0 || plan[kEmg] != 0;

  Moment moments[kSamples];
#pragma unroll
  for (int k = 0; k < kSamples; ++k) {
    moments[k] = moment_at(job, plan, column, from + k * kCounters);
  }
  for (std::int64_t l = 0; l < leads; ++l) {
    const Global<const T> x = row<const T>(job.x, n * leads + l);
    const Global<T> y = row<T>(job.y, n * leads + l);
    const double factor = plan[column.leads + l];
    float z[kSamples] = {};
    if (noisy && factor != 0) {
      const PhiloxWords w = words_for(kForNoise, l, counter, id, key);
      const Normals a = normals(w.word[0], w.word[1]);
      const Normals b = normals(w.word[2], w.word[3]);
      z[0] = a.first;
      z[1] = a.second;
      z[2] = b.first;
      z[3] = b.second;
    }
#pragma unroll
    for (int k = 0; k < kSamples; ++k) {
      const std::int64_t t = from + k * kCounters;
      if (t >= length) continue;
      const Moment& moment = moments[k];
      A v = 0;
      if (factor != 0 && !moment.masked) {
        if (moment.index >= 0) {
          const int next = moment.index < last ? moment.index + 1 : last;
          v = between(static_cast<A>(x[moment.index]), static_cast<A>(x[next]), moment.share);
        }
        v = v * static_cast<A>(factor) + static_cast<A>(moment.added) +
            static_cast<A>(moment.sd * z[k]);
      }
      y[t] = static_cast<T>(v);
    }
  }
}

unsigned blocks(std::int64_t count, std::int64_t size) {
  return static_cast<unsigned>((count + size - 1) / size);
}

}  // namespace

void draw(const Draw& job, std::uint64_t stream) {
  launch<draw_kernel>({blocks(job.plan.size[0], kThreads)}, kThreads, 0, stream, job);
}

void apply(const Apply& job, std::uint64_t stream) {
  dispatch_float(job.x.dtype, [&](auto zero) {
    using T = decltype(zero);
    const Grid grid{static_cast<unsigned>(job.y.size[0]),
                    blocks(job.y.size[2], kSamples * kThreads)};
    launch<apply_kernel<T>>(grid, kThreads, 0, stream, job);
  });
}

}  // namespace ecgfast::augment::cuda
