// From a row a plane to all planes side by side, and back, on the CPU: included by cpu.cpp alone,
// all of it in an anonymous namespace, so that no instruction set can lend code to another.
#pragma once

#include <cstring>
#include <utility>

#include "clip_transform/plan.h"

namespace ecgfast::clip_transform::ECGFAST_ISA {
namespace {

using Byte = std::uint8_t;

// 16 bytes of a plane, or of a few planes side by side.
typedef Byte Pack __attribute__((vector_size(16)));

Pack pack_at(const Byte* from) {
  Pack pack;
  std::memcpy(&pack, from, sizeof pack);
  return pack;
}

// Of two packs one half of the bytes in turn, or every other byte.
template <bool kInTurn, int kHalf, int... kByte>
Pack mixed(Pack a, Pack b, std::integer_sequence<int, kByte...>) {
#if defined(__clang__)
  return __builtin_shufflevector(
      a, b, (kInTurn ? 8 * kHalf + kByte / 2 + kByte % 2 * 16 : 2 * kByte + kHalf)...);
#else
  return __builtin_shuffle(
      a, b, Pack{(kInTurn ? 8 * kHalf + kByte / 2 + kByte % 2 * 16 : 2 * kByte + kHalf)...});
#endif
}
template <bool kInTurn, int kHalf>
Pack mixed(Pack a, Pack b) {
  return mixed<kInTurn, kHalf>(a, b, std::make_integer_sequence<int, 16>{});
}

// 16 pixels of kLane planes: from a pack a plane to one pixel of all after the other, in as many
// packs, by rounds of mixing a pack with the one half of all further on; or back.
template <int kLane, bool kTogether>
void mix(Pack* packs) {
  for (int round = 1; round < kLane; round *= 2) {
    Pack made[kLane];
    for (int i = 0; i < kLane / 2; ++i) {
      if (kTogether) {
        made[2 * i] = mixed<true, 0>(packs[i], packs[i + kLane / 2]);
        made[2 * i + 1] = mixed<true, 1>(packs[i], packs[i + kLane / 2]);
      } else {
        made[i] = mixed<false, 0>(packs[2 * i], packs[2 * i + 1]);
        made[i + kLane / 2] = mixed<false, 1>(packs[2 * i], packs[2 * i + 1]);
      }
    }
    std::memcpy(packs, made, sizeof made);
  }
}

// Calls body(x) for blocks of 16 pixels that fill a row, the last one over the one before it.
template <typename Body>
void each_block(int width, const Body& body) {
  for (int x = 0; x < width; x += 16) body(x + 16 <= width ? x : width - 16);
}

// Rows of kLane planes, one pixel of all after the other.
template <int kLane>
void lay_side_by_side(Byte* __restrict__ to, const Byte* __restrict__ rows, int width) {
  if (width < 16) {
    for (int x = 0; x < width; ++x) {
      for (int l = 0; l < kLane; ++l) to[x * kLane + l] = rows[l * width + x];
    }
    return;
  }
  each_block(width, [&](int x) {
    Pack packs[kLane];
    for (int l = 0; l < kLane; ++l) packs[l] = pack_at(rows + l * width + x);
    mix<kLane, true>(packs);
    std::memcpy(to + x * kLane, packs, sizeof packs);
  });
}

// And back, those of `count` planes, which lie `plane` bytes apart.
template <int kLane>
void take_apart(Byte* __restrict__ to, std::int64_t plane, const Byte* __restrict__ from, int count,
                int width) {
  if (width < 16) {
    for (int l = 0; l < count; ++l) {
      for (int x = 0; x < width; ++x) to[l * plane + x] = from[x * kLane + l];
    }
    return;
  }
  each_block(width, [&](int x) {
    Pack packs[kLane];
    std::memcpy(packs, from + x * kLane, sizeof packs);
    mix<kLane, false>(packs);
    for (int l = 0; l < count; ++l) std::memcpy(to + l * plane + x, &packs[l], sizeof packs[l]);
  });
}

}  // namespace
}  // namespace ecgfast::clip_transform::ECGFAST_ISA
