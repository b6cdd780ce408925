// CPU kernel of moving_median, compiled once for each instruction set; see contract.h.
#include "core/beyond.h"
#include "core/dispatch.h"
#include "core/gaps_lanes.h"
#include "moving_median/contract.h"
#include "moving_median/order.h"

namespace ecgfast::moving_median::ECGFAST_ISA {
namespace {

template <typename T>
struct Key;
template <>
struct Key<float> {
  using Bits = std::uint32_t;
};
template <>
struct Key<double> {
  using Bits = std::uint64_t;
};

// A sample's key and where it stands.
template <typename Bits>
struct Entry {
  Bits key;
  std::uint32_t place;
};

// Sorts by key, equal ones by place: a counting sort for each byte, the lowest first. Returns which
// of both lists holds the result.
template <typename Bits>
Entry<Bits>* sort(Entry<Bits>* from, Entry<Bits>* to, std::int64_t count) {
  constexpr int kBytes = sizeof(Bits);
  std::uint32_t counts[kBytes][256] = {};
  for (std::int64_t i = 0; i < count; ++i) {
    for (int byte = 0; byte < kBytes; ++byte) ++counts[byte][from[i].key >> (8 * byte) & 255];
  }
  for (int byte = 0; byte < kBytes; ++byte) {
    if (counts[byte][from[0].key >> (8 * byte) & 255] == count) continue;  // the same in all
    std::uint32_t before = 0;
    for (int digit = 0; digit < 256; ++digit) {
      const std::uint32_t here = counts[byte][digit];
      counts[byte][digit] = before;
      before += here;
    }
    for (std::int64_t i = 0; i < count; ++i) {
      to[counts[byte][from[i].key >> (8 * byte) & 255]++] = from[i];
    }
    Entry<Bits>* const sorted = to;
    to = from;
    from = sorted;
  }
  return from;
}

// The ranks that are in the window, a bit each.
struct RankSet {
  std::uint64_t* words;

  void add(std::uint32_t rank) { words[rank / 64] |= std::uint64_t{1} << rank % 64; }
  void remove(std::uint32_t rank) { words[rank / 64] &= ~(std::uint64_t{1} << rank % 64); }
  std::uint32_t from(std::uint32_t rank) const {  // the first at or after; there is one
    std::uint32_t word = rank / 64;
    std::uint64_t bits = words[word] >> rank % 64 << rank % 64;
    while (bits == 0) bits = words[++word];
    return 64 * word + static_cast<std::uint32_t>(__builtin_ctzll(bits));
  }
  std::uint32_t before(std::uint32_t rank) const {  // the last before; there is one
    std::uint32_t word = rank / 64;
    std::uint64_t bits = words[word] & ((std::uint64_t{1} << rank % 64) - 1);
    while (bits == 0) bits = words[--word];
    return 64 * word + 63 - static_cast<std::uint32_t>(__builtin_clzll(bits));
  }
};

// y[j] = the value of rank window / 2 among x[j], ..., x[j + window - 1]. The median moves by few
// members of the window when one sample goes and another comes.
template <typename T>
void median_of_values(const T* x, std::int64_t count, std::int64_t window, char* scratch, T* y) {
  using Bits = typename Key<T>::Bits;
  Entry<Bits>* const entries = reinterpret_cast<Entry<Bits>*>(scratch);
  for (std::int64_t i = 0; i < count; ++i) {
    Bits bits;
    __builtin_memcpy(&bits, x + i, sizeof bits);
    entries[i] = {ordered(bits), static_cast<std::uint32_t>(i)};
  }
  const Entry<Bits>* const in_order = sort(entries, entries + count, count);
  std::uint64_t* const words = reinterpret_cast<std::uint64_t*>(entries + 2 * count);
  const std::int64_t word_count = count / 64 + 1;
  std::uint32_t* const rank = reinterpret_cast<std::uint32_t*>(words + word_count);
  for (std::int64_t i = 0; i < word_count; ++i) words[i] = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    rank[in_order[i].place] = static_cast<std::uint32_t>(i);
  }

  RankSet set = {words};
  for (std::int64_t i = 0; i < window; ++i) set.add(rank[i]);
  const std::int64_t wanted = window / 2;
  std::uint32_t median = set.from(0);
  for (std::int64_t i = 0; i < wanted; ++i) median = set.from(median + 1);
  std::int64_t below = wanted;  // members of lower rank than `median`
  for (std::int64_t j = 0;; ++j) {
    y[j] = x[in_order[median].place];
    if (j + window == count) return;
    const std::uint32_t gone = rank[j];
    const std::uint32_t come = rank[j + window];
    set.remove(gone);
    set.add(come);
    below += static_cast<int>(come < median) - static_cast<int>(gone < median);
    if (below > wanted) {
      median = set.before(median);
      --below;
    } else {
      median = set.from(median);
      if (below < wanted) {
        median = set.from(median + 1);
        ++below;
      }
    }
  }
}

template <typename T>
void median_of_tile(const Median& job, std::int64_t r, std::int64_t tile, char* scratch) {
  const std::int64_t samples = job.x.size[2];
  const std::int64_t begin = tile * job.tile;
  const std::int64_t end = tile_end(job, begin);
  const std::int64_t first = begin - job.window / 2;
  const std::int64_t count = end - begin + job.window - 1;
  const T* const x = row<T>(job.x, r);
  T* const y = row<T>(job.y, r) + begin;
  T* const values = reinterpret_cast<T*>(scratch);

  const std::int64_t from = first < 0 ? 0 : first;
  const std::int64_t to = first + count > samples ? samples : first + count;
  if (to > from) __builtin_memcpy(values + (from - first), x + from, (to - from) * sizeof(T));
  const auto outside = [&](std::int64_t i) {
    const std::int64_t at = sample_at(job.beyond, i, samples);
    values[i - first] = at < 0 ? T(0) : filled_at<T>(x, at, samples, job.on_gap);
  };
  for (std::int64_t i = first; i < 0 && i < first + count; ++i) outside(i);
  for (std::int64_t i = first > samples ? first : samples; i < first + count; ++i) outside(i);

  const std::int64_t held = count_gaps_of_row(values, count);
  const std::int64_t own = held == 0 ? 0 : count_gaps_of_row(x + begin, end - begin);
  static_cast<std::int32_t*>(job.gaps.data)[r * job.gaps.size[1] + tile] =
      static_cast<std::int32_t>(own);
  if (held > 0 && job.on_gap != OnGap::keep && to > from) {
    fill_gaps(x, samples, job.on_gap, values + (from - first), 1, from, to);
  }
  const std::int64_t bytes = (count * static_cast<std::int64_t>(sizeof(T)) + 15) / 16 * 16;
  median_of_values(values, count, job.window, scratch + bytes, y);
  if (held == 0 || job.on_gap != OnGap::keep) return;
  std::int64_t clean = 0;  // the first output that is not known to be NaN
  for (std::int64_t i = 0; i < count; ++i) {
    if (values[i] == values[i]) continue;
    std::int64_t j = i - (job.window - 1) > clean ? i - (job.window - 1) : clean;
    for (; j <= i && j < end - begin; ++j) y[j] = values[i];
    clean = j;
  }
}

}  // namespace

void forward(const Median& job, Range items) {
  dispatch_float(job.x.dtype, [&](auto zero) {
    char* const scratch = static_cast<char*>(job.scratch.data) + items.worker * job.scratch.size[1];
    const std::int64_t tiles = tiles_of(job);
    for (std::int64_t item = items.begin; item < items.end; ++item) {
      median_of_tile<decltype(zero)>(job, item / tiles, item % tiles, scratch);
    }
  });
}

}  // namespace ecgfast::moving_median::ECGFAST_ISA
