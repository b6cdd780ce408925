// CPU kernels of augment, compiled once for each instruction set; see contract.h.
#include "augment/draw.h"
#include "core/dispatch.h"
#include "core/philox_lanes.h"

namespace ecgfast::augment::ECGFAST_ISA {
namespace {

constexpr int kTile = 64;             // samples
constexpr int kCounters = kTile / 4;  // each gives four normals

// What all leads of a record share, a number a sample of y: in a worker's row of scratch.
struct Shared {
  float* added;  // mV of mains and wander
  float* sd;     // mV of noise and EMG
  std::int32_t* index;
  float* share;
};

Shared shared_of(const Apply& job, int worker) {
  const std::int64_t padded = job.scratch.size[1] / 16;  // four arrays of 4 bytes a sample
  float* const first = reinterpret_cast<float*>(record<std::uint8_t>(job.scratch, worker));
  return {first, first + padded, reinterpret_cast<std::int32_t*>(first + 2 * padded),
          first + 3 * padded};
}

// Samples of y that lie in the record.
struct Inside {
  std::int64_t begin, end;
};

Inside inside_of(std::int64_t first, std::int64_t samples, std::int64_t length) {
  const std::int64_t begin = first < 0 ? -first : 0;
  const std::int64_t end = samples - first;
  return {begin < length ? begin : length, end < 0 ? 0 : end < length ? end : length};
}

void add_sines(float* __restrict__ added, std::int64_t length, float mv, double turns,
               double phase) {
  const std::uint32_t step = turn_of(turns);
  const std::uint32_t from = turn_of(phase);
#pragma omp simd
  for (std::int64_t t = 0; t < length; ++t) added[t] += mv * sine_at(step, from, t);
}

void share_sines(const Apply& job, const double* plan, const Columns& column, float* added,
                 std::int64_t length) {
  for (std::int64_t t = 0; t < length; ++t) added[t] = 0;
  const float mains = static_cast<float>(plan[kMains]);
  if (mains != 0) add_sines(added, length, mains, job.spec.mains_turns, plan[kMainsPhase]);
  const float wander = static_cast<float>(plan[kWander] / job.spec.sines);
  if (plan[kWander] == 0) return;
  for (const double* sine = plan + column.sines; sine < plan + column.bursts; sine += 2) {
    add_sines(added, length, wander, sine[0], sine[1]);
  }
}

void share_noise(const double* plan, const Columns& column, float* __restrict__ sd,
                 std::int64_t length) {
  for (std::int64_t t = 0; t < length; ++t) sd[t] = 0;
  for (const double* burst = plan + column.bursts; burst < plan + column.masks; burst += 2) {
    const std::int64_t begin = whole(burst[0]);
    const std::int64_t size = whole(burst[1]);
    const std::int64_t inside = size < length - begin ? size : length - begin;
    for (std::int64_t t = 0; t < inside; ++t) {
      const float e = envelope(t, size);
      sd[begin + t] = e > sd[begin + t] ? e : sd[begin + t];
    }
  }
  const float noise = static_cast<float>(plan[kNoise]);
  const float emg = static_cast<float>(plan[kEmg]);
#pragma omp simd
  for (std::int64_t t = 0; t < length; ++t) {
    const float e = emg * sd[t];
    sd[t] = sqrtf(noise * noise + e * e);
  }
}

void share_positions(const Apply& job, const double* plan, const Columns& column,
                     const Shared& shared, const Inside& inside) {
  const std::int64_t first = whole(plan[kFirst]);
  const std::int64_t last = job.x.size[2] - 1;
  const std::int64_t pieces = whole(job.spec.knots) + 1;
  std::int64_t t = inside.begin;
  while (t < inside.end) {
    const std::int64_t j = piece_at(first + t, pieces, last);
    const Piece piece = piece_of(plan + column.knots, j, pieces, last);
    // The last sample of all belongs to the last piece.
    const std::int64_t until = (j + 1 == pieces ? last + 1 : piece.end) - first;
    const std::int64_t end = until < inside.end ? until : inside.end;
    const std::int64_t at = piece.at + piece.step * (first + t - piece.begin);
    const std::int64_t begin = t;
#pragma omp simd
    for (std::int64_t i = 0; i < end - begin; ++i) {
      const std::int64_t position = at + piece.step * i;
      shared.index[begin + i] = static_cast<std::int32_t>(position >> 32);
      shared.share[begin + i] = share_of(position);
    }
    t = end;
  }
}

void draw_normals(float* __restrict__ z, std::int64_t tile, std::int64_t lead, std::int64_t id,
                  PhiloxKey key) {
  std::uint32_t words[4][kCounters];
  philox_lanes(words, counter_for(kForNoise, lead, tile * kCounters, id), key);
#pragma omp simd
  for (int j = 0; j < kCounters; ++j) {
    const Normals a = normals(words[0][j], words[1][j]);
    const Normals b = normals(words[2][j], words[3][j]);
    z[j] = a.first;
    z[j + kCounters] = a.second;
    z[j + 2 * kCounters] = b.first;
    z[j + 3 * kCounters] = b.second;
  }
}

// What a tile of y is read from: zeros where it lies outside the record.
template <typename T>
void read_tile(T* __restrict__ v, const T* __restrict__ x, std::int64_t tile, const Inside& inside,
               const Shared& shared, std::int64_t first, std::int64_t last, bool warped) {
  const std::int64_t from = tile * kTile;
  const std::int64_t begin = inside.begin > from ? inside.begin - from : 0;
  const std::int64_t end = inside.end - from < kTile ? inside.end - from : kTile;
  if (begin > 0 || end < kTile) {
    for (int i = 0; i < kTile; ++i) v[i] = 0;
  }
  if (!warped) {
    for (std::int64_t i = begin; i < end; ++i) v[i] = x[first + from + i];
    return;
  }
  const std::int32_t* const index = shared.index + from;
  const float* const share = shared.share + from;
#pragma omp simd
  for (std::int64_t i = begin; i < end; ++i) {
    const std::int32_t here = index[i];
    const std::int32_t next = here < last ? here + 1 : here;
    v[i] = between(x[here], x[next], share[i]);
  }
}

// What is done to every lead of a record.
struct Steps {
  bool warped, added, noisy;
};

template <typename T>
void apply_row(const Apply& job, std::int64_t r, const double* plan, const Steps& steps,
               const Shared& shared, const Inside& inside, T factor, std::int64_t id,
               PhiloxKey key) {
  const T* const x = row<T>(job.x, r);
  T* const y = row<T>(job.y, r);
  const std::int64_t length = job.y.size[2];
  const std::int64_t lead = r % job.x.size[1];
  const std::int64_t first = whole(plan[kFirst]);
  for (std::int64_t tile = 0; tile * kTile < length; ++tile) {
    T v[kTile];
    read_tile(v, x, tile, inside, shared, first, job.x.size[2] - 1, steps.warped);
    for (int i = 0; i < kTile; ++i) v[i] *= factor;
    const float* const added = shared.added + tile * kTile;
    if (steps.added) {
      for (int i = 0; i < kTile; ++i) v[i] += static_cast<T>(added[i]);
    }
    if (steps.noisy) {
      float z[kTile];
      draw_normals(z, tile, lead, id, key);
      const float* const sd = shared.sd + tile * kTile;
      for (int i = 0; i < kTile; ++i) v[i] += static_cast<T>(sd[i] * z[i]);
    }
    const std::int64_t left = length - tile * kTile;
    const std::int64_t count = left < kTile ? left : kTile;
    for (std::int64_t i = 0; i < count; ++i) y[tile * kTile + i] = v[i];
  }
}

template <typename T>
void zero(T* y, std::int64_t count) {
  for (std::int64_t t = 0; t < count; ++t) y[t] = 0;
}

template <typename T>
void apply_record(const Apply& job, std::int64_t n, const Shared& shared) {
  const std::int64_t leads = job.x.size[1];
  const std::int64_t length = job.y.size[2];
  const double* const plan = record<const double>(job.plan, n);
  const Columns column = columns_of(job.spec, leads);
  const std::int64_t id = *record<const std::int64_t>(job.record_ids, n);
  const PhiloxKey key = philox_key(*static_cast<const std::int64_t*>(job.seed.data));
  const Inside inside = inside_of(whole(plan[kFirst]), job.x.size[2], length);
  const Steps steps{job.spec.warp > 0, plan[kMains] != 0 || plan[kWander] != 0,
                    plan[kNoise] != 0 || plan[kEmg] != 0};
  if (steps.added) share_sines(job, plan, column, shared.added, length);
  if (steps.noisy) share_noise(plan, column, shared.sd, length);
  if (steps.warped) share_positions(job, plan, column, shared, inside);
  for (std::int64_t l = 0; l < leads; ++l) {
    T* const y = row<T>(job.y, n * leads + l);
    const double factor = plan[column.leads + l];
    if (factor == 0) {
      zero(y, length);
      continue;
    }
    apply_row(job, n * leads + l, plan, steps, shared, inside, static_cast<T>(factor), id, key);
    for (const double* mask = plan + column.masks; mask < plan + column.leads; mask += 2) {
      zero(y + whole(mask[0]), whole(mask[1]));
    }
  }
}

}  // namespace

void draw(const Draw& job, Range records) {
  const PhiloxKey key = philox_key(*static_cast<const std::int64_t*>(job.seed.data));
  for (std::int64_t n = records.begin; n < records.end; ++n) {
    draw_record(record<double>(job.plan, n), job, *record<const std::int64_t>(job.record_ids, n),
                key);
  }
}

void apply(const Apply& job, Range records) {
  const Shared shared = shared_of(job, records.worker);
  dispatch_float(job.x.dtype, [&](auto zero) {
    for (std::int64_t n = records.begin; n < records.end; ++n) {
      apply_record<decltype(zero)>(job, n, shared);
    }
  });
}

}  // namespace ecgfast::augment::ECGFAST_ISA
