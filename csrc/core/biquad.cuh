// Second-order sections over a tile of a signal that lies in the registers of a block, kChunk
// samples a thread. Each thread runs a section over its own samples from zero states, a scan over
// the threads gives the states that truly stood before them, and the reply to those is added: this
// part has no feedback, so that its rounding does not grow. Modal form, in which a section turns
// and shrinks its state, keeps float good enough for poles near 1, where direct forms fail.
#pragma once

#include "core/biquad.h"
#include "core/cuda.cuh"

namespace ecgfast {

constexpr int kTileThreads = kTile / kChunk;
constexpr int kTileShared = kTile + kTileThreads;  // elements of a tile in shared memory

// Where sample i of a tile lies in shared memory: an odd number of words from thread to thread, so
// that all may read their own samples at once.
__device__ static __forceinline__ int place_in_tile(int i) { return i + i / kChunk; }

template <typename A, typename C>
__device__ static __forceinline__ void take_samples(Shared<C> tile, A (&x)[kChunk]) {
  const int first = place_in_tile(thread_index() * kChunk);
#pragma unroll
  for (int n = 0; n < kChunk; ++n) x[n] = static_cast<A>(tile[first + n]);
}

template <typename A, typename C>
__device__ static __forceinline__ void put_samples(const A (&x)[kChunk], Shared<C> tile) {
  const int first = place_in_tile(thread_index() * kChunk);
#pragma unroll
  for (int n = 0; n < kChunk; ++n) tile[first + n] = static_cast<C>(x[n]);
}

// (u, v) = m (u, v) + (p, q), m being 2 x 2, row by row.
template <typename A>
__device__ static __forceinline__ void turn(const A (&m)[4], A& u, A& v, A p = 0, A q = 0) {
  const A next = m[0] * u + (m[1] * v + p);
  v = m[2] * u + (m[3] * v + q);
  u = next;
}

// One sample through a section: returns y, moves the states. kSlow adds a small change to them, so
// that a pole near 1 is not rounded as 1 is; fast poles do without the two additions.
template <ModalForm kForm, bool kSlow, typename A>
__device__ static __forceinline__ A modal_step(const ModalSection<A>& m, A x, A through, A& u,
                                               A& v) {
  constexpr bool kDriven = kForm == ModalForm::drive_first;
  const A y = kDriven ? m.weight[1] * v + (m.weight[0] * u + through) : u + through;
  const A in_u = kDriven ? x : m.weight[0] * x;
  const A in_v = kDriven ? A(0) : m.weight[1] * x;
  if constexpr (kSlow) {
    const A change = m.less[0] * u + (m.step[1] * v + in_u);
    v += m.less[1] * v + (m.step[2] * u + in_v);
    u += change;
  } else {
    turn(m.step, u, v, in_u, in_v);
  }
  return y;
}

// Section m over the tile, in place. `state` (2) holds the states before the tile. If end is
// positive, it is left with those after sample end - 1, that is in this tile. `joint` (2 a warp) is
// for this call; the next one needs another, after which this one is free again.
template <ModalForm kForm, typename A>
__device__ static inline void run_modal(const ModalSection<A>& m, A (&x)[kChunk], Shared<A> state,
                                        Shared<A> joint, int end) {
  const int last_thread = (end - 1) / kChunk;
  const bool keeps = end > 0 && thread_index() == last_thread;
  const int own = end - last_thread * kChunk;
  A end_u = 0;
  A end_v = 0;
  if (keeps) {
#pragma unroll
    for (int n = 0; n < kChunk; ++n) {
      if (n < own) modal_step<kForm, true>(m, x[n], A(0), end_u, end_v);
    }
  }
  A u = 0;
  A v = 0;
  if (m.direct != A(1)) {
#pragma unroll
    for (int n = 0; n < kChunk; ++n) {
      x[n] = modal_step<kForm, true>(m, x[n], m.direct * x[n], u, v);
    }
  } else if (m.slow) {
#pragma unroll
    for (int n = 0; n < kChunk; ++n) x[n] = modal_step<kForm, true>(m, x[n], x[n], u, v);
  } else {
#pragma unroll
    for (int n = 0; n < kChunk; ++n) x[n] = modal_step<kForm, false>(m, x[n], x[n], u, v);
  }

#pragma unroll
  for (int j = 0; j < 5; ++j) {
    A from_u = shuffle_up(u, 1 << j);
    A from_v = shuffle_up(v, 1 << j);
    if (lane_index() >= 1 << j) {
      turn(m.leap[j], from_u, from_v, u, v);
      u = from_u;
      v = from_v;
    }
  }
  A into_u = state[0];  // what stands before this warp
  A into_v = state[1];
  if (lane_index() == 31) {
    joint[2 * warp_index()] = u;
    joint[2 * warp_index() + 1] = v;
  }
  sync_block();
  for (int warp = 0; warp < warp_index(); ++warp) {
    turn(m.leap[5], into_u, into_v, A(joint[2 * warp]), A(joint[2 * warp + 1]));
  }
#pragma unroll
  for (int j = 0; j < 5; ++j) {
    if (lane_index() & (1 << j)) turn(m.leap[j], into_u, into_v);
  }
  u = shuffle_up(u, 1);
  v = shuffle_up(v, 1);
  into_u += lane_index() == 0 ? A(0) : u;
  into_v += lane_index() == 0 ? A(0) : v;

#pragma unroll
  for (int part = 0; part < kChunk / kReply; ++part) {
    u = into_u;
    v = into_v;
    if (part > 0) turn(m.jump[part == 0 ? 0 : part - 1], u, v);
#pragma unroll
    for (int n = 0; n < kReply; ++n) {
      x[part * kReply + n] += m.reply[n][1] * v + m.reply[n][0] * u;
    }
  }
  if (keeps) {
    for (int n = 0; n < own; ++n) turn(m.step, into_u, into_v);
    state[0] = into_u + end_u;
    state[1] = into_v + end_v;
  }
}

constexpr int kJoint = 4 * (kTileThreads / 32);  // elements, for two calls of run_modal in turn

// All sections over the tile, in place, without the gain; states (count, 2) as in run_modal.
template <ModalForm kForm, typename A>
__device__ static inline void run_cascade(const Modal<A>& modal, A (&x)[kChunk], Shared<A> states,
                                          Shared<A> joint, int end) {
#pragma unroll 1
  for (int k = 0; k < modal.count; ++k) {
    run_modal<kForm>(modal.section[k], x, states + 2 * k, joint + k % 2 * (kJoint / 2), end);
  }
}

template <typename A>
__device__ static __forceinline__ void scale_samples(A (&x)[kChunk], A gain) {
#pragma unroll
  for (int n = 0; n < kChunk; ++n) x[n] *= gain;
}

// The states that endless time at `level` leaves behind. A barrier has to follow.
template <typename A, typename C>
__device__ static inline void start_steady(const Modal<A>& modal, C level, Shared<A> states) {
  const int k = thread_index();
  if (k < modal.count) {
    states[2 * k] = modal.section[k].steady[0] * static_cast<A>(level);
    states[2 * k + 1] = modal.section[k].steady[1] * static_cast<A>(level);
  }
}

// Filters a tile in shared memory, in place, between two barriers. `end` as in run_modal.
template <typename A, typename C>
__device__ static inline void filter_tile(const Modal<A>& modal, Shared<C> tile, Shared<A> states,
                                          Shared<A> joint, int end) {
  A x[kChunk];
  sync_block();
  take_samples(tile, x);
  scale_samples(x, modal.gain);
  run_cascade<ModalForm::drive_first>(modal, x, states, joint, end);
  put_samples(x, tile);  // each thread its own samples, which it alone has read
  sync_block();
}

// As filter_tile, back in time from sample length - 1 of the tile to sample 0; `end` counts the
// samples gone through.
template <typename A, typename C>
__device__ static inline void filter_tile_back(const Modal<A>& modal, Shared<C> tile, int length,
                                               Shared<A> states, Shared<A> joint, int end) {
  A x[kChunk];
  sync_block();
  const int first = length - 1 - thread_index() * kChunk;
#pragma unroll
  for (int n = 0; n < kChunk; ++n) {
    x[n] = first - n >= 0 ? static_cast<A>(tile[place_in_tile(first - n)]) : A(0);
  }
  scale_samples(x, modal.gain);
  run_cascade<ModalForm::drive_first>(modal, x, states, joint, end);
#pragma unroll
  for (int n = 0; n < kChunk; ++n) {
    if (first - n >= 0) tile[place_in_tile(first - n)] = static_cast<C>(x[n]);
  }
  sync_block();
}

}  // namespace ecgfast
