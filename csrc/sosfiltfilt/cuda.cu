// CUDA kernels of sosfiltfilt and sosfilt; see contract.h.
#include "core/biquad.cuh"
#include "sosfiltfilt/contract.h"

namespace ecgfast::sosfiltfilt::cuda {
namespace {

// Sample t, or what on_gap puts there. Looks for neighbours sample by sample: gaps are rare.
template <typename C, typename T>
__device__ C mended(const Global<const T>& x, std::int64_t samples, std::int64_t t, OnGap how) {
  const C value = static_cast<C>(x[t]);
  if (how == OnGap::keep || !is_gap(value)) return value;
  if (how == OnGap::zero) return C(0);
  std::int64_t before = t - 1;
  while (before >= 0 && is_gap(static_cast<C>(x[before]))) --before;
  std::int64_t after = t + 1;
  while (after < samples && is_gap(static_cast<C>(x[after]))) ++after;
  if (after == samples) after = -1;
  const C left = before < 0 ? C(0) : static_cast<C>(x[before]);
  const C right = after < 0 ? C(0) : static_cast<C>(x[after]);
  return across_gap(t, before, left, after, right);
}

// Sample t of the extended signal; t < 0 lies before it, t >= samples after.
template <typename C, typename T>
__device__ C extended(const Global<const T>& x, std::int64_t samples, std::int64_t t, Pad pad,
                      OnGap how) {
  if (t >= 0 && t < samples) return mended<C>(x, samples, t, how);
  const std::int64_t end = t < 0 ? 0 : samples - 1;
  const C last = mended<C>(x, samples, end, how);
  if (pad == Pad::constant) return last;
  const C mirrored = mended<C>(x, samples, 2 * end - t, how);
  return pad == Pad::odd ? 2 * last - mirrored : mirrored;
}

template <typename A>
__device__ void start_at_zero(const Modal<A>& modal, Shared<A> states) {
  if (thread_index() < 2 * modal.count) states[thread_index()] = 0;
}

// The sum of all outputs after the input is over. For all threads.
template <typename A>
__device__ A rest_of(const Modal<A>& modal, Shared<A> states) {
  A sum = 0;
  for (int k = 0; k < modal.count; ++k) {
    sum += modal.section[k].rest[0] * states[2 * k] + modal.section[k].rest[1] * states[2 * k + 1];
  }
  return sum;
}

__device__ int shorter(std::int64_t rest) { return rest < kTile ? static_cast<int>(rest) : kTile; }

// One block a row. Grid: rows. Reads x, writes y and one count; a row of more than a tile also
// writes and reads its scratch.
template <typename A, typename T, bool kOneTile>
__global__ void __launch_bounds__(kTileThreads, kOneTile ? 0 : 1)
    forward_kernel(Forward job, const __grid_constant__ Modal<A> modal) {
  using C = acc_t<T>;
  ECGFAST_SHARED(C, tile, kTileShared);
  ECGFAST_SHARED(A, states, 2 * kMaxSections);
  ECGFAST_SHARED(A, joint, kJoint);
  const std::int64_t r = block_index();
  const std::int64_t samples = job.x.size[2];
  const std::int64_t edge = job.edge;
  const std::int64_t length = samples + 2 * edge;
  const Global<const T> x = row<const T>(job.x, r);
  const Global<T> y = row<T>(job.y, r);
  const Global<C> line = kOneTile ? Global<C>(nullptr) : update<C>(job.scratch) + r * length;

  int gaps = 0;
  start_steady(modal, extended<C>(x, samples, -edge, job.pad, job.on_gap), states);
  for (std::int64_t begin = 0; begin < length; begin += kTile) {
    const int own = shorter(length - begin);
    for (int i = thread_index(); i < kTile; i += kTileThreads) {
      const std::int64_t t = begin + i - edge;
      if (t >= 0 && t < samples) gaps += is_gap(static_cast<C>(x[t])) ? 1 : 0;
      tile[place_in_tile(i)] = i < own ? extended<C>(x, samples, t, job.pad, job.on_gap) : C(0);
    }
    filter_tile(modal, tile, states, joint, kOneTile ? 0 : own);
    if constexpr (!kOneTile) {
      for (int i = thread_index(); i < own; i += kTileThreads) {
        line[begin + i] = tile[place_in_tile(i)];
      }
      sync_block();
    }
  }
  gaps = block_sum<kTileThreads>(gaps);
  if (thread_index() == 0) global<std::int32_t>(job.gaps)[r] = gaps;

  if constexpr (kOneTile) {
    start_steady(modal, C(tile[place_in_tile(static_cast<int>(length) - 1)]), states);
    filter_tile_back(modal, tile, static_cast<int>(length), states, joint, 0);
    for (std::int64_t t = thread_index(); t < samples; t += kTileThreads) {
      y[t] = static_cast<T>(C(tile[place_in_tile(static_cast<int>(t + edge))]));
    }
  } else {
    start_steady(modal, C(line[length - 1]), states);
    for (std::int64_t begin = 0; begin < length - edge; begin += kTile) {  // backwards from the end
      const int own = shorter(length - begin);
      for (int i = thread_index(); i < kTile; i += kTileThreads) {
        tile[place_in_tile(i)] = i < own ? C(line[length - 1 - begin - i]) : C(0);
      }
      filter_tile(modal, tile, states, joint, own);
      for (int i = thread_index(); i < own; i += kTileThreads) {
        const std::int64_t t = length - 1 - begin - i - edge;
        if (t >= 0 && t < samples) y[t] = static_cast<T>(C(tile[place_in_tile(i)]));
      }
      sync_block();
    }
  }
}

// The transpose of the extension: what the line of samples with both edges, read by get and changed
// by add, has for the samples that the edges came from. All threads come here after a barrier, and
// another one follows here.
template <typename C, typename Get, typename Add>
__device__ void fold(Pad pad, std::int64_t samples, std::int64_t edge, const Get& get,
                     const Add& add) {
  for (int end = 0; end < 2; ++end) {
    const std::int64_t last = edge + (end == 0 ? 0 : samples - 1);
    const std::int64_t step = end == 0 ? -1 : 1;
    C own = 0;
    for (std::int64_t j = 1 + thread_index(); j <= edge; j += kTileThreads) {
      const C value = get(last + j * step);
      if (pad == Pad::constant) {
        own += value;
        continue;
      }
      add(last - j * step, pad == Pad::odd ? -value : value);
      if (pad == Pad::odd) own += 2 * value;
    }
    own = block_sum<kTileThreads>(own);
    if (thread_index() == 0) add(last, own);
    sync_block();
  }
}

// One block a row. Grid: rows. Reads grad_y, writes grad_x; a row of more than a tile also writes
// and reads its scratch.
template <typename A, typename T, bool kOneTile>
__global__ void __launch_bounds__(kTileThreads, 1)
    backward_kernel(Backward job, const __grid_constant__ Modal<A> modal) {
  using C = acc_t<T>;
  ECGFAST_SHARED(C, tile, kTileShared);
  ECGFAST_SHARED(A, states, 2 * kMaxSections);
  ECGFAST_SHARED(A, joint, kJoint);
  const std::int64_t r = block_index();
  const std::int64_t samples = job.grad_y.size[2];
  const std::int64_t edge = job.edge;
  const std::int64_t length = samples + 2 * edge;
  const Global<const T> g = row<const T>(job.grad_y, r);
  const Global<T> dx = row<T>(job.grad_x, r);
  const Global<C> line = kOneTile ? Global<C>(nullptr) : update<C>(job.scratch) + r * length;

  start_at_zero(modal, states);
  for (std::int64_t begin = 0; begin < length; begin += kTile) {
    const int own = shorter(length - begin);
    for (int i = thread_index(); i < kTile; i += kTileThreads) {
      const std::int64_t t = begin + i - edge;
      tile[place_in_tile(i)] = t >= 0 && t < samples ? static_cast<C>(g[t]) : C(0);
    }
    filter_tile(modal, tile, states, joint, own);
    if constexpr (!kOneTile) {
      for (int i = thread_index(); i < own; i += kTileThreads) {
        line[begin + i] = tile[place_in_tile(i)];
      }
      sync_block();
    }
  }
  const A last = rest_of(modal, states);
  sync_block();
  start_at_zero(modal, states);
  const auto fold_line = [&](const auto& get, const auto& set) {
    const C first = static_cast<C>(rest_of(modal, states));
    if (thread_index() == 0) set(0, get(0) + first);
    sync_block();
    fold<C>(job.pad, samples, edge, get, [&](std::int64_t i, C value) { set(i, get(i) + value); });
    for (std::int64_t t = thread_index(); t < samples; t += kTileThreads) {
      dx[t] = static_cast<T>(get(edge + t));
    }
  };

  if constexpr (kOneTile) {
    const int end = place_in_tile(static_cast<int>(length) - 1);
    if (thread_index() == 0) tile[end] += static_cast<C>(last);
    filter_tile_back(modal, tile, static_cast<int>(length), states, joint,
                     static_cast<int>(length));
    fold_line([&](std::int64_t i) { return C(tile[place_in_tile(static_cast<int>(i))]); },
              [&](std::int64_t i, C value) { tile[place_in_tile(static_cast<int>(i))] = value; });
  } else {
    if (thread_index() == 0) line[length - 1] += static_cast<C>(last);
    sync_block();
    for (std::int64_t begin = 0; begin < length; begin += kTile) {  // backwards from the end
      const int own = shorter(length - begin);
      for (int i = thread_index(); i < kTile; i += kTileThreads) {
        tile[place_in_tile(i)] = i < own ? C(line[length - 1 - begin - i]) : C(0);
      }
      filter_tile(modal, tile, states, joint, own);
      for (int i = thread_index(); i < own; i += kTileThreads) {
        line[length - 1 - begin - i] = tile[place_in_tile(i)];
      }
      sync_block();
    }
    fold_line([&](std::int64_t i) { return C(line[i]); },
              [&](std::int64_t i, C value) { line[i] = value; });
  }
}

// One block a row. Grid: rows. Reads x and zi, writes y and zf.
template <typename A, typename T>
__global__ void __launch_bounds__(kTileThreads)
    causal_kernel(Causal job, const __grid_constant__ Modal<A> modal) {
  using C = acc_t<T>;
  ECGFAST_SHARED(C, tile, kTileShared);
  ECGFAST_SHARED(A, states, 2 * kMaxSections);
  ECGFAST_SHARED(A, joint, kJoint);
  A chunk[kChunk];
  const std::int64_t r = block_index();
  const std::int64_t samples = job.x.size[2];
  const Global<const T> x = row<const T>(job.x, r);
  const Global<T> y = row<T>(job.y, r);
  const int k = thread_index();
  const std::int64_t z = (r * modal.count + k) * 2;
  if (k < modal.count) {
    const ModalSection<A>& m = modal.section[k];
    const auto s1 = static_cast<A>(global<const double>(job.zi)[z]);
    const auto s2 = static_cast<A>(global<const double>(job.zi)[z + 1]);
    states[2 * k] = s1 / m.scale;
    states[2 * k + 1] = (s2 - m.to_s2[0] * (s1 / m.scale)) / m.to_s2[1];
  }
  for (std::int64_t begin = 0; begin < samples; begin += kTile) {
    const int own = shorter(samples - begin);
    for (int i = thread_index(); i < kTile; i += kTileThreads) {
      tile[place_in_tile(i)] = i < own ? static_cast<C>(x[begin + i]) : C(0);
    }
    sync_block();
    take_samples(tile, chunk);
    scale_samples(chunk, modal.gain);
    run_cascade<ModalForm::read_first>(modal, chunk, states, joint, own);
    put_samples(chunk, tile);
    sync_block();
    for (int i = thread_index(); i < own; i += kTileThreads) {
      y[begin + i] = static_cast<T>(C(tile[place_in_tile(i)]));
    }
    sync_block();
  }
  if (k < modal.count) {
    const ModalSection<A>& m = modal.section[k];
    const A u = states[2 * k];
    const A v = states[2 * k + 1];
    global<double>(job.zf)[z] = static_cast<double>(m.scale * u);
    global<double>(job.zf)[z + 1] = static_cast<double>(m.to_s2[0] * u + m.to_s2[1] * v);
  }
}

// One block a row. Grid: rows. Reads grad_y and grad_zf, writes grad_x and grad_zi. The transpose
// of read_first is drive_first, from the last section to the first: modal has them in that order.
template <typename A, typename T>
__global__ void __launch_bounds__(kTileThreads)
    causal_backward_kernel(CausalBackward job, const __grid_constant__ Modal<A> modal) {
  using C = acc_t<T>;
  ECGFAST_SHARED(C, tile, kTileShared);
  ECGFAST_SHARED(A, states, 2 * kMaxSections);
  ECGFAST_SHARED(A, joint, kJoint);
  A chunk[kChunk];
  const std::int64_t r = block_index();
  const std::int64_t samples = job.grad_y.size[2];
  const Global<const T> g = row<const T>(job.grad_y, r);
  const Global<T> dx = row<T>(job.grad_x, r);
  const int k = thread_index();
  const std::int64_t z = (r * modal.count + (modal.count - 1 - k)) * 2;
  if (k < modal.count) {
    const ModalSection<A>& m = modal.section[k];
    const auto s1 = static_cast<A>(global<const double>(job.grad_zf)[z]);
    const auto s2 = static_cast<A>(global<const double>(job.grad_zf)[z + 1]);
    states[2 * k] = m.scale * s1 + m.to_s2[0] * s2;
    states[2 * k + 1] = m.to_s2[1] * s2;
  }
  for (std::int64_t begin = 0; begin < samples; begin += kTile) {  // backwards from the end
    const int own = shorter(samples - begin);
    for (int i = thread_index(); i < kTile; i += kTileThreads) {
      tile[place_in_tile(i)] = i < own ? static_cast<C>(g[samples - 1 - begin - i]) : C(0);
    }
    sync_block();
    take_samples(tile, chunk);
    run_cascade<ModalForm::drive_first>(modal, chunk, states, joint, own);
    scale_samples(chunk, modal.gain);  // the states are gradients of what follows it
    put_samples(chunk, tile);
    sync_block();
    for (int i = thread_index(); i < own; i += kTileThreads) {
      dx[samples - 1 - begin - i] = static_cast<T>(C(tile[place_in_tile(i)]));
    }
    sync_block();
  }
  if (k < modal.count) {
    const ModalSection<A>& m = modal.section[k];
    const A second = states[2 * k + 1] / m.to_s2[1];
    global<double>(job.grad_zi)[z] =
        static_cast<double>((states[2 * k] - m.to_s2[0] * second) / m.scale);
    global<double>(job.grad_zi)[z + 1] = static_cast<double>(second);
  }
}

unsigned blocks(const View& view) { return static_cast<unsigned>(view.size[0] * view.size[1]); }

// Calls body(T{}, A{}) with the element type and that of the arithmetic.
template <typename Body>
void dispatch(DType dtype, const Sections& sections, const Body& body) {
  dispatch_float(dtype, [&](auto zero) {
    if (std::is_same_v<decltype(zero), double> || needs_double(sections)) {
      body(zero, double{});
    } else {
      body(zero, acc_t<decltype(zero)>{});
    }
  });
}

}  // namespace

void forward(const Forward& job, std::uint64_t stream) {
  dispatch(job.x.dtype, job.sections, [&](auto zero, auto one) {
    using T = decltype(zero);
    using A = decltype(one);
    const Modal<A> modal = modal_of<A>(job.sections, ModalForm::drive_first);
    if (job.x.size[2] + 2 * job.edge <= kTile) {
      launch<forward_kernel<A, T, true>>({blocks(job.x)}, kTileThreads, 0, stream, job, modal);
    } else {
      launch<forward_kernel<A, T, false>>({blocks(job.x)}, kTileThreads, 0, stream, job, modal);
    }
  });
}

void backward(const Backward& job, std::uint64_t stream) {
  dispatch(job.grad_y.dtype, job.sections, [&](auto zero, auto one) {
    using T = decltype(zero);
    using A = decltype(one);
    const Modal<A> modal = modal_of<A>(job.sections, ModalForm::drive_first);
    const Grid grid{blocks(job.grad_y)};
    if (job.grad_y.size[2] + 2 * job.edge <= kTile) {
      launch<backward_kernel<A, T, true>>(grid, kTileThreads, 0, stream, job, modal);
    } else {
      launch<backward_kernel<A, T, false>>(grid, kTileThreads, 0, stream, job, modal);
    }
  });
}

void causal(const Causal& job, std::uint64_t stream) {
  dispatch(job.x.dtype, job.sections, [&](auto zero, auto one) {
    using A = decltype(one);
    const Modal<A> modal = modal_of<A>(job.sections, ModalForm::read_first);
    launch<causal_kernel<A, decltype(zero)>>({blocks(job.x)}, kTileThreads, 0, stream, job, modal);
  });
}

void causal_backward(const CausalBackward& job, std::uint64_t stream) {
  dispatch(job.grad_y.dtype, job.sections, [&](auto zero, auto one) {
    using A = decltype(one);
    const Modal<A> given = modal_of<A>(job.sections, ModalForm::drive_first);
    Modal<A> modal = given;
    for (int k = 0; k < given.count; ++k) modal.section[k] = given.section[given.count - 1 - k];
    launch<causal_backward_kernel<A, decltype(zero)>>({blocks(job.grad_y)}, kTileThreads, 0, stream,
                                                      job, modal);
  });
}

}  // namespace ecgfast::sosfiltfilt::cuda
