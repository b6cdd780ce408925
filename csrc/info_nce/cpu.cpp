// CPU kernels of info_nce, compiled once for each instruction set; see contract.h. Over 400 lines:
// forward and backward share the sweep over pairs.
#include "core/dispatch.h"
#include "core/exp_lanes.h"
#include "info_nce/contract.h"

namespace ecgfast::info_nce::ECGFAST_ISA {
namespace {

constexpr double kInf = __builtin_inf();

// Ids as wide as the numbers that they go with.
template <typename T>
bits_t<T> load_ids(const std::int32_t* ids) {
  if constexpr (sizeof(T) == sizeof(std::int32_t)) {
    return (bits_t<T>)load(reinterpret_cast<const float*>(ids));
  } else {
    typedef std::int32_t narrow __attribute__((vector_size(kVectorBytes / 2)));
    narrow loaded;
    __builtin_memcpy(&loaded, ids, sizeof loaded);
    return __builtin_convertvector(loaded, bits_t<T>);
  }
}

template <typename T>
bits_t<T> ids_at(const std::int32_t* ids, int count) {
  if (count == kLanes<T>) return load_ids<T>(ids);
  std::int32_t some[kLanes<T>] = {};
  __builtin_memcpy(some, ids, static_cast<std::size_t>(count) * sizeof some[0]);
  return load_ids<T>(some);
}

// The first `count` of a vector's numbers.
template <typename T>
vec_t<T> values_at(const T* values, int count) {
  if (count == kLanes<T>) return load(values);
  vec_t<T> some = {};
  __builtin_memcpy(&some, values, static_cast<std::size_t>(count) * sizeof(T));
  return some;
}

template <typename T>
void store_at(T* values, int count, vec_t<T> v) {
  __builtin_memcpy(values, &v,
                   count == kLanes<T> ? sizeof v : static_cast<std::size_t>(count) * sizeof(T));
}

template <typename T>
double sum_of(vec_t<T> v) {
  double sum = 0;
  for (int lane = 0; lane < kLanes<T>; ++lane) sum += static_cast<double>(v[lane]);
  return sum;
}

template <typename T>
T maximum_of(vec_t<T> v) {
  T most = v[0];
  for (int lane = 1; lane < kLanes<T>; ++lane) most = v[lane] > most ? v[lane] : most;
  return most;
}

template <typename T>
std::int64_t count_of(bits_t<T> v) {
  std::int64_t sum = 0;
  for (int lane = 0; lane < kLanes<T>; ++lane) sum += v[lane];
  return sum;
}

// Whether any lane of a mask holds.
template <typename T>
bool any_of(bits_t<T> v) {
  typedef std::uint64_t words __attribute__((vector_size(kVectorBytes)));
  std::uint64_t some = 0;
  for (int w = 0; w < kVectorBytes / 8; ++w) some |= ((words)v)[w];
  return some != 0;
}

// At most 64 tiles of columns, so that the bits of one number say which of them hold a positive.
template <typename T>
std::int64_t tile_of(std::int64_t columns) {
  constexpr std::int64_t kLeast = 256;
  const std::int64_t even = (columns + 64 * kLanes<T> - 1) / (64 * kLanes<T>)*kLanes<T>;
  return even < kLeast ? kLeast : even;
}

// An anchor, and the columns that are set against it.
struct Anchor {
  const std::int32_t* labels;
  const std::int32_t* groups;  // nullptr: labels stand for them
  std::int32_t label, group;
  std::int64_t place;
};

Anchor anchor_of(const Identity& rows, const Identity& columns, const View& places,
                 std::int64_t r) {
  const bool grouped = rows.groups.data != nullptr;
  return {static_cast<const std::int32_t*>(columns.labels.data),
          grouped ? static_cast<const std::int32_t*>(columns.groups.data) : nullptr,
          record<const std::int32_t>(rows.labels, r)[0],
          grouped ? record<const std::int32_t>(rows.groups, r)[0] : 0,
          record<const std::int64_t>(places, r)[0]};
}

// body(column, how many of a vector, which are positive, which are negative) for all columns in
// [begin, end), a vector at a time. Masks are -1 where they hold.
template <typename T, typename Body>
void sweep(const Anchor& a, std::int64_t begin, std::int64_t end, const Body& body) {
  for (std::int64_t j = begin; j < end; j += kLanes<T>) {
    const int count = static_cast<int>(end - j < kLanes<T> ? end - j : kLanes<T>);
    bits_t<T> positive = ids_at<T>(a.labels + j, count) == a.label;
    bits_t<T> negative = ~positive;
    if (a.groups != nullptr) negative &= ids_at<T>(a.groups + j, count) != a.group;
    if (count < kLanes<T> || (a.place >= j && a.place < j + kLanes<T>)) {
      for (int lane = 0; lane < kLanes<T>; ++lane) {
        if (lane < count && j + lane != a.place) continue;
        positive[lane] = 0;
        negative[lane] = 0;
      }
    }
    body(j, count, positive, negative);
  }
}

template <typename T>
struct Row {
  const T* products;
  Anchor anchor;
  std::int64_t columns;
};

template <typename T>
struct Found {
  T loss, first, second;
  std::int64_t count;
};

// nt_xent, sup_con and negatives.
template <Kind kKind, typename T>
Found<T> log_sum(const Row<T>& row, T scale2) {
  const std::int64_t tile = tile_of<T>(row.columns);
  const auto exponent = [&](std::int64_t j, int count) {
    return rounded<T>(values_at(row.products + j, count) * scale2);
  };
  const auto legal = [](bits_t<T> positive, bits_t<T> negative) {
    return kKind == Kind::sup_con ? positive | negative : negative;
  };

  vec_t<T> most = broadcast(static_cast<T>(-kInf));
  std::int64_t count = 0;
  std::uint64_t held = 0;
  for (std::int64_t t = 0; t * tile < row.columns; ++t) {
    bits_t<T> positives = {};
    const std::int64_t end = (t + 1) * tile < row.columns ? (t + 1) * tile : row.columns;
    sweep<T>(row.anchor, t * tile, end,
             [&](std::int64_t j, int lanes, bits_t<T> positive, bits_t<T> negative) {
               const vec_t<T> z = exponent(j, lanes);
               most = (legal(positive, negative) & (z > most)) ? z : most;
               positives -= positive;
             });
    const std::int64_t here = count_of<T>(positives);
    count += here;
    held |= static_cast<std::uint64_t>(here > 0) << t;
  }
  const T shift = maximum_of<T>(most);

  double sum = 0;
  double below = 0;  // of the positives: how far they lie under the shift
  for (std::int64_t begin = 0; begin < row.columns; begin += tile) {
    vec_t<T> part = {};
    vec_t<T> under = {};
    const std::int64_t end = begin + tile < row.columns ? begin + tile : row.columns;
    sweep<T>(row.anchor, begin, end,
             [&](std::int64_t j, int lanes, bits_t<T> positive, bits_t<T> negative) {
               const vec_t<T> z = exponent(j, lanes) - shift;
               part += legal(positive, negative) ? exp2_lanes<T>(z) : vec_t<T>{};
               if (kKind == Kind::sup_con) under -= positive ? z : vec_t<T>{};
             });
    sum += sum_of<T>(part);
    if (kKind == Kind::sup_con) below += sum_of<T>(under);
  }
  const double log2_sum = __builtin_log2(sum);
  const double total = static_cast<double>(shift) + log2_sum;
  if (kKind == Kind::negatives) {
    return {static_cast<T>(total * kLn2), static_cast<T>(total), T(0), 1};
  }
  if (kKind == Kind::sup_con) {
    if (count == 0) return {T(0), static_cast<T>(total), T(0), 0};
    const double share = 1.0 / static_cast<double>(count);
    return {static_cast<T>((below * share + log2_sum) * kLn2), static_cast<T>(total),
            static_cast<T>(share), 1};
  }

  double loss = 0;
  double sigmas = 0;
  const T log_t = static_cast<T>(log2_sum);
  for (std::int64_t t = 0; t * tile < row.columns; ++t) {
    if ((held >> t & 1) == 0) continue;
    vec_t<T> part = {};
    vec_t<T> shares = {};
    const std::int64_t end = (t + 1) * tile < row.columns ? (t + 1) * tile : row.columns;
    sweep<T>(row.anchor, t * tile, end,
             [&](std::int64_t j, int lanes, bits_t<T> positive, bits_t<T>) {
               if (!any_of<T>(positive)) return;
               const vec_t<T> x = (shift - exponent(j, lanes)) + log_t;
               const vec_t<T> e = exp2_lanes<T>(-magnitude<T>(x));
               const vec_t<T> above = x > 0 ? x * static_cast<T>(kLn2) : vec_t<T>{};
               part += positive ? above + log1p_lanes<T>(e) : vec_t<T>{};
               const vec_t<T> sigma = (x < 0 ? e : broadcast(T(1))) / (e + T(1));
               shares += positive ? sigma : vec_t<T>{};
             });
    loss += sum_of<T>(part);
    sigmas += sum_of<T>(shares);
  }
  return {static_cast<T>(loss), static_cast<T>(total), static_cast<T>(sigmas), count};
}

// The exponents of multi_similarity, in units of log 2: slope * (s - base).
template <typename T>
struct Slopes {
  T positive, negative, base;
};

template <typename T>
Slopes<T> slopes_of(const Loss& of) {
  const double* const numbers = static_cast<const double*>(of.numbers.data);
  return {static_cast<T>(-numbers[0] * kLog2E), static_cast<T>(numbers[1] * kLog2E),
          static_cast<T>(numbers[2])};
}

template <typename T>
Found<T> two_log_sums(const Row<T>& row, const Loss& of) {
  const Slopes<T> slopes = slopes_of<T>(of);
  const std::int64_t tile = tile_of<T>(row.columns);
  vec_t<T> most_p = {};  // the exponent of the 1 in log(1 + ...)
  vec_t<T> most_n = {};
  const auto exponent = [&](std::int64_t j, int lanes, bits_t<T> positive) {
    const vec_t<T> slope = positive ? broadcast(slopes.positive) : broadcast(slopes.negative);
    return rounded<T>((values_at(row.products + j, lanes) - slopes.base) * slope);
  };
  sweep<T>(row.anchor, 0, row.columns,
           [&](std::int64_t j, int lanes, bits_t<T> positive, bits_t<T> negative) {
             const vec_t<T> z = exponent(j, lanes, positive);
             most_p = (positive & (z > most_p)) ? z : most_p;
             most_n = (negative & (z > most_n)) ? z : most_n;
           });
  const T shift_p = maximum_of<T>(most_p);
  const T shift_n = maximum_of<T>(most_n);
  double sum_p = __builtin_exp2(static_cast<double>(-shift_p));
  double sum_n = __builtin_exp2(static_cast<double>(-shift_n));
  for (std::int64_t begin = 0; begin < row.columns; begin += tile) {
    vec_t<T> part_p = {};
    vec_t<T> part_n = {};
    const std::int64_t end = begin + tile < row.columns ? begin + tile : row.columns;
    sweep<T>(row.anchor, begin, end,
             [&](std::int64_t j, int lanes, bits_t<T> positive, bits_t<T> negative) {
               const vec_t<T> shift = positive ? broadcast(shift_p) : broadcast(shift_n);
               const vec_t<T> e = exp2_lanes<T>(exponent(j, lanes, positive) - shift);
               part_p += positive ? e : vec_t<T>{};
               part_n += negative ? e : vec_t<T>{};
             });
    sum_p += sum_of<T>(part_p);
    sum_n += sum_of<T>(part_n);
  }
  const double* const numbers = static_cast<const double*>(of.numbers.data);
  const double a = static_cast<double>(shift_p) + __builtin_log2(sum_p);
  const double b = static_cast<double>(shift_n) + __builtin_log2(sum_n);
  return {static_cast<T>((a / numbers[0] + b / numbers[1]) * kLn2), static_cast<T>(a),
          static_cast<T>(b), 1};
}

template <typename T>
Found<T> found_of(const Row<T>& row, T scale2, const Loss& of) {
  switch (of.kind) {
    case Kind::nt_xent:
      return log_sum<Kind::nt_xent>(row, scale2);
    case Kind::sup_con:
      return log_sum<Kind::sup_con>(row, scale2);
    case Kind::negatives:
      return log_sum<Kind::negatives>(row, scale2);
    default:
      return two_log_sums(row, of);
  }
}

// An anchor's numbers for backward: of the row, the same in all lanes; of columns, one a lane.
template <typename T>
struct Numbers {
  vec_t<T> weight, first, second;
};

template <typename T>
Numbers<T> numbers_of_row(const Side& side, std::int64_t r) {
  return {broadcast(record<const T>(side.weight, r)[0]),
          broadcast(record<const T>(side.first, r)[0]),
          broadcast(record<const T>(side.second, r)[0])};
}

template <typename T>
Numbers<T> numbers_of_columns(const Side& side, std::int64_t j, int lanes) {
  return {values_at(static_cast<const T*>(side.weight.data) + j, lanes),
          values_at(static_cast<const T*>(side.first.data) + j, lanes),
          values_at(static_cast<const T*>(side.second.data) + j, lanes)};
}

// What one anchor says of its pairs: its part of dz. z is the exponent in units of log 2, for
// multi_similarity that of the relation which the pair has.
template <Kind kKind, bool kPositives, typename T>
vec_t<T> part_of(const Numbers<T>& of, vec_t<T> z, bits_t<T> positive) {
  if constexpr (kKind == Kind::multi_similarity) {
    const vec_t<T> e = exp2_lanes<T>(z - (positive ? of.first : of.second));
    return of.weight * (positive ? -e : e);
  } else {
    const vec_t<T> e = exp2_lanes<T>(z - of.first);
    if constexpr (kKind == Kind::negatives) return of.weight * e;
    if constexpr (kKind == Kind::sup_con) {
      const vec_t<T> part = of.weight * (e - (positive ? of.second : vec_t<T>{}));
      return of.second > 0 ? part : vec_t<T>{};
    }
    const vec_t<T> negative = of.weight * of.second * e;
    if constexpr (!kPositives) return negative;
    return positive ? -of.weight / (e + T(1)) : negative;
  }
}

// One row and one tile of columns; returns the sum of dz * s there.
template <Kind kKind, bool kPositives, bool kColumns, typename T>
double write_tile(const Backward& job, const Anchor& anchor, const Numbers<T>& own, T* products,
                  T scale2, std::int64_t begin, std::int64_t end) {
  Slopes<T> slopes{};
  if constexpr (kKind == Kind::multi_similarity) slopes = slopes_of<T>(job.of);
  vec_t<T> dot = {};
  sweep<T>(
      anchor, begin, end, [&](std::int64_t j, int lanes, bits_t<T> positive, bits_t<T> negative) {
        const vec_t<T> s = values_at<T>(products + j, lanes);
        const vec_t<T> slope = positive ? broadcast(slopes.positive) : broadcast(slopes.negative);
        const vec_t<T> z =
            rounded<T>(kKind == Kind::multi_similarity ? (s - slopes.base) * slope : s * scale2);
        vec_t<T> dz = part_of<kKind, kPositives>(own, z, positive);
        if constexpr (kColumns) {
          dz +=
              part_of<kKind, kPositives>(numbers_of_columns<T>(job.columns, j, lanes), z, positive);
        }
        constexpr bool kBoth = kKind != Kind::negatives && kPositives;
        const bits_t<T> legal = kBoth ? positive | negative : negative;
        dz = legal ? dz : vec_t<T>{};
        dot += legal ? dz * s : vec_t<T>{};
        store_at<T>(products + j, lanes, dz);
      });
  return sum_of<T>(dot);
}

template <typename T>
bool any_positive(const Anchor& anchor, std::int64_t begin, std::int64_t end) {
  bits_t<T> any = {};
  for (std::int64_t j = begin; j < end; j += kLanes<T>) {
    const int lanes = static_cast<int>(end - j < kLanes<T> ? end - j : kLanes<T>);
    any |= ids_at<T>(anchor.labels + j, lanes) == anchor.label;
  }
  return count_of<T>(any) != 0;
}

template <Kind kKind, bool kColumns, typename T>
void write_rows(const Backward& job, Range rows) {
  const std::int64_t columns = job.products.size[1];
  const T scale2 = static_cast<T>(kLog2E * *static_cast<const T*>(job.scale.data));
  constexpr std::int64_t kTile = 256;
  double* const dots = static_cast<double*>(job.dots.data);
  for (std::int64_t r = rows.begin; r < rows.end; ++r) dots[r] = 0;
  for (std::int64_t begin = 0; begin < columns; begin += kTile) {  // its numbers stay in L1
    const std::int64_t end = begin + kTile < columns ? begin + kTile : columns;
    for (std::int64_t r = rows.begin; r < rows.end; ++r) {
      const Anchor anchor = anchor_of(job.rows.ids, job.columns.ids, job.places, r);
      const Numbers<T> own = numbers_of_row<T>(job.rows, r);
      T* const products = record<T>(job.products, r);
      // nt_xent alone divides for a positive: most tiles have none
      dots[r] +=
          kKind != Kind::nt_xent || any_positive<T>(anchor, begin, end)
              ? write_tile<kKind, true, kColumns, T>(job, anchor, own, products, scale2, begin, end)
              : write_tile<kKind, false, kColumns, T>(job, anchor, own, products, scale2, begin,
                                                      end);
    }
  }
}

template <Kind kKind, typename T>
void write_sides(const Backward& job, Range rows) {
  if (job.columns.weight.data == nullptr) return write_rows<kKind, false, T>(job, rows);
  write_rows<kKind, true, T>(job, rows);
}

}  // namespace

void forward(const Forward& job, Range rows) {
  dispatch_float(job.products.dtype, [&](auto zero) {
    using T = decltype(zero);
    const T scale2 = static_cast<T>(kLog2E * *static_cast<const T*>(job.scale.data));
    for (std::int64_t r = rows.begin; r < rows.end; ++r) {
      const Row<T> row{record<const T>(job.products, r),
                       anchor_of(job.rows, job.columns, job.places, r), job.products.size[1]};
      const Found<T> found = found_of(row, scale2, job.of);
      *record<T>(job.loss, r) = found.loss;
      *record<T>(job.first, r) = found.first;
      *record<T>(job.second, r) = found.second;
      *record<std::int64_t>(job.counts, r) = found.count;
    }
  });
}

void backward(const Backward& job, Range rows) {
  dispatch_float(job.products.dtype, [&](auto zero) {
    using T = decltype(zero);
    switch (job.of.kind) {
      case Kind::nt_xent:
        return write_sides<Kind::nt_xent, T>(job, rows);
      case Kind::sup_con:
        return write_sides<Kind::sup_con, T>(job, rows);
      case Kind::multi_similarity:
        return write_sides<Kind::multi_similarity, T>(job, rows);
      case Kind::negatives:
        return write_sides<Kind::negatives, T>(job, rows);
    }
  });
}

}  // namespace ecgfast::info_nce::ECGFAST_ISA
