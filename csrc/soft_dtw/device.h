// How pairs lie in a device's scratch. Included by kernels: every function is static.
#pragma once

#include "core/dispatch.h"
#include "soft_dtw/contract.h"

namespace ecgfast::soft_dtw {

constexpr int kMostPairs = 4;  // of a warp

// Lanes of a warp that share a pair: a band leaves few rows to a pass, so that short ones waste
// less.
ECGFAST_HD static constexpr int lanes_of(bool banded) { return banded ? 8 : 32; }

// Columns of y that a lane holds, with all their leads: 48 registers.
ECGFAST_HD static constexpr int columns_of(std::int64_t padded_leads) {
  return padded_leads > 12 ? 2 : 4;
}

// Steps between two states that the backward kernel keeps.
ECGFAST_HD static constexpr int steps_of(bool banded) { return 4 * lanes_of(banded); }

// Floats of a column of R, or of anything else that has one value a row.
ECGFAST_HD static inline std::int64_t column_size(std::int64_t x_samples) {
  return (x_samples + kBefore + kAfter + 7) / 4 * 4;
}

// What the backward kernel needs for a pair, in floats, one after the other; within int.
struct Room {
  std::int64_t column;  // column_size
  std::int64_t passes;  // seams are columns of R left of each of them, and right of the last
  std::int64_t slot;    // a step of all lanes: R of their columns, and of the one to the left
  std::int64_t tiles;   // of a pass, each with a slot as its state
  std::int64_t states, tile, flow, grad_x, size;  // where they begin; seams are at 0
};

ECGFAST_HD static inline Room room_of(std::int64_t padded_leads, std::int64_t x_samples,
                                      std::int64_t y_samples, bool banded) {
  const std::int64_t lanes = lanes_of(banded);
  const std::int64_t columns = columns_of(padded_leads);
  const std::int64_t steps = steps_of(banded);
  Room room{};
  room.column = column_size(x_samples);
  room.passes = (y_samples + lanes * columns - 1) / (lanes * columns);
  room.slot = lanes * (columns + 1);
  room.tiles = (x_samples + lanes + 7 + steps - 1) / steps;
  room.states = (room.passes + 1) * room.column;
  room.tile = room.states + room.passes * room.tiles * room.slot;
  room.flow = room.tile + (steps + 1) * room.slot;
  room.grad_x = room.flow + room.column;
  room.size = room.grad_x + room.column * padded_leads;
  return room;
}

}  // namespace ecgfast::soft_dtw
