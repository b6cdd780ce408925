// CPU kernel of rasterize_ecg, compiled once for each instruction set; see contract.h.
//
// A page's ink is collected in a mask of levels, a byte a pixel, in a worker's row of scratch; then
// every row of the page is written once: copied where no line of the grid lies across it, computed
// where one does, and computed again for the few pixels that have ink. Reading the mask clears it.
#include <cmath>
#include <cstring>

#include "core/dispatch.h"
#include "rasterize_ecg/plan.h"

namespace ecgfast::rasterize_ecg::ECGFAST_ISA {
namespace {

// What a worker holds of a page.
struct Sheet {
  float* fine;          // g_x of the fine lines, a column each
  float* coarse;        // likewise
  float* squares;       // of a column's distances, a row each and some to spare
  float* trace;         // five numbers for each sample of a strip
  std::uint8_t* plain;  // a row that no line lies across, of all colours, as it is written
  std::uint8_t* mask;
  int width, height;
};

Sheet sheet_of(const Draw& job, int worker, std::int64_t element) {
  const std::int64_t width = job.out.size[3];
  std::uint8_t* const first = record<std::uint8_t>(job.scratch, worker);
  float* const numbers = reinterpret_cast<float*>(first);
  const std::int64_t height = job.out.size[2] + kSpare;
  std::uint8_t* const plain = first + 4 * (2 * width + height + 5 * job.x.size[2]);
  return {numbers,
          numbers + width,
          numbers + 2 * width,
          numbers + 2 * width + height,
          plain,
          plain + job.out.size[1] * width * element,
          static_cast<int>(width),
          static_cast<int>(job.out.size[2])};
}

void put_segment(const Sheet& sheet, const Segment& segment) {
  draw_segment(segment, sheet.width, sheet.height, [&](int column, int row, int level) {
    std::uint8_t& at = sheet.mask[static_cast<std::int64_t>(row) * sheet.width + column];
    if (level > at) at = static_cast<std::uint8_t>(level);
  });
}

// The segments of a strip, `count` of them: where each begins and how far it goes, in pixels.
struct Trace {
  const float* y;
  const float* ey;
  const float* inverse;  // of the square of its length
  const int* from;       // the rows that it may reach; none of one that is not drawn
  const int* to;
  std::int64_t count;
  float x0, ex, radius;
};

constexpr int kRows = 8;  // of a column, side by side

// Lowers the squares of the distances of a column's pixels, from row `from` to `to` and up to 15
// beyond, to those from a segment; x is their place to the right of where it begins.
void lower(float* __restrict__ squares, int from, int to, float x, float y, float ex, float ey,
           float inverse) {
  const float across = x * ex;
  for (int begin = from; begin < to; begin += kRows) {
    const float first = static_cast<float>(begin) + 0.5f - y;
#pragma omp simd
    for (int i = 0; i < kRows; ++i) {
      const float ay = first + static_cast<float>(i);
      float along = (across + ay * ey) * inverse;
      along = along < 0.0f ? 0.0f : along > 1.0f ? 1.0f : along;
      const float px = x - along * ex;
      const float py = ay - along * ey;
      const float square = px * px + py * py;
      squares[begin + i] = square < squares[begin + i] ? square : squares[begin + i];
    }
  }
}

// The squares of a column's distances become levels.
void levels_of(float* __restrict__ squares, int from, int to, float radius) {
#pragma omp simd
  for (int r = from; r < to; ++r) squares[r] = static_cast<float>(level_of(radius, squares[r]));
}

std::int64_t index_in(double index, std::int64_t count) {
  return index <= 0                            ? 0
         : index >= static_cast<double>(count) ? count
                                               : static_cast<std::int64_t>(index);
}

// Column by column: the segments that may reach it, each with the rows that it may reach.
void put_trace(const Sheet& sheet, const Trace& trace, int top, int bottom) {
  const double ex = trace.ex;
  const double each = 1 / ex;
  const double reach = trace.radius;
  const float least = trace.radius * trace.radius;
  const int left = whole_in(trace.x0 - trace.radius, 0, sheet.width);
  const int right = whole_in(
      trace.x0 + trace.ex * static_cast<float>(trace.count) + trace.radius + 1, 0, sheet.width);
  for (int column = left; column < right; ++column) {
    const double x = column + 0.5 - static_cast<double>(trace.x0);
    const std::int64_t begin = index_in((x - reach) * each, trace.count);
    const std::int64_t end = index_in((x + reach) * each + 1, trace.count);
    int above = bottom;
    int below = top;
    for (std::int64_t t = begin; t < end; ++t) {
      const int from = trace.from[t];
      const int to = trace.to[t];
      if (from >= to) continue;
      const int padded = from + (to - from + kRows - 1) / kRows * kRows;
      if (above >= below) above = below = from;  // the first that is seen here
      for (int r = from; r < above; ++r) sheet.squares[r] = least;
      for (int r = below; r < padded; ++r) sheet.squares[r] = least;
      above = from < above ? from : above;
      below = padded > below ? padded : below;
      lower(sheet.squares, from, to, static_cast<float>(x - ex * static_cast<double>(t)),
            trace.y[t], trace.ex, trace.ey[t], trace.inverse[t]);
    }
    below = below < bottom ? below : bottom;
    levels_of(sheet.squares, above, below, trace.radius);
    std::uint8_t* at = sheet.mask + static_cast<std::int64_t>(above) * sheet.width + column;
    for (int r = above; r < below; ++r, at += sheet.width) {
      const std::uint8_t level = static_cast<std::uint8_t>(sheet.squares[r]);
      *at = level > *at ? level : *at;
    }
  }
}

template <typename T>
void put_strip(const Draw& job, const Sheet& sheet, const double* strip, std::int64_t n) {
  const std::int64_t count = static_cast<std::int64_t>(strip[kCount]) - 1;
  if (strip[kLead] < 0 || count < 1) return;
  const T* const x = row<T>(job.x, n * job.x.size[1] + static_cast<std::int64_t>(strip[kLead]));
  const std::int64_t first = static_cast<std::int64_t>(strip[kFirst]);
  const float ex = static_cast<float>(strip[kDx]);
  const float radius = static_cast<float>(strip[kStripRadius]);
  const int bottom =
      strip[kBottom] < sheet.height ? static_cast<int>(strip[kBottom]) : sheet.height;
  const int top = strip[kTop] < bottom ? static_cast<int>(strip[kTop]) : bottom;
  const std::int64_t room = job.x.size[2];
  float* const y = sheet.trace;
  float* const ey = y + room;
  float* const inverse = ey + room;
  int* const from = reinterpret_cast<int*>(inverse + room);
  int* const to = from + room;
  for (std::int64_t t = 0; t <= count; ++t) {
    const double at = strip[kY0] - strip[kDy] * static_cast<double>(x[first + t]);
    y[t] = std::fabs(at) < kFarthest ? static_cast<float>(at) : NAN;  // of a NaN, too
  }
  for (std::int64_t t = 0; t < count; ++t) {
    ey[t] = y[t + 1] - y[t];
    inverse[t] = 1.0f / (ex * ex + ey[t] * ey[t]);
    const float upper = ey[t] < 0.0f ? y[t + 1] : y[t];
    const float lower_end = ey[t] < 0.0f ? y[t] : y[t + 1];
    const bool there = ey[t] == ey[t];
    from[t] = there ? whole_in(upper - radius, top, bottom) : bottom;
    to[t] = there ? whole_in(lower_end + radius + 1.0f, top, bottom) : bottom;
  }
  const float x0 = static_cast<float>(strip[kX0] + strip[kDx] * static_cast<double>(first));
  put_trace(sheet, {y, ey, inverse, from, to, count, x0, ex, radius}, top, bottom);
}

void put_strokes(const Draw& job, const Sheet& sheet, std::int64_t n) {
  const double* const groups = record<double>(job.groups, n);
  const double* const strokes = record<double>(job.strokes, n);
  for (std::int64_t g = 0; g < job.groups.size[1]; ++g) {
    const double* const group = groups + g * kGroup;
    for (std::int64_t s = static_cast<std::int64_t>(group[4]);
         s < static_cast<std::int64_t>(group[5]); ++s) {
      const double* const stroke = strokes + s * kStroke;
      put_segment(sheet, {static_cast<float>(stroke[0]), static_cast<float>(stroke[1]),
                          static_cast<float>(stroke[2]), static_cast<float>(stroke[3]),
                          static_cast<float>(stroke[4]), 0, sheet.height});
    }
  }
}

std::uint8_t stored(float colour, std::uint8_t) { return static_cast<std::uint8_t>(colour + 0.5f); }
float stored(float colour, float) { return colour * (1.0f / 255.0f); }

// The colours of a page, one of C at a time.
struct Ink {
  float paper, fine, coarse, ink;
};

Ink ink_of(const double* look, int colour) {
  return {static_cast<float>(look[kPaper + colour]), static_cast<float>(look[kFine + colour]),
          static_cast<float>(look[kCoarse + colour]), static_cast<float>(look[kInk + colour])};
}

// A row of paper that lines lie across, `thin` and `thick` their shares.
template <typename O>
void paper_row(O* __restrict__ out, const Sheet& sheet, const Ink& of, float thin, float thick) {
  const float* __restrict__ const fine = sheet.fine;
  const float* __restrict__ const coarse = sheet.coarse;
#pragma omp simd
  for (int i = 0; i < sheet.width; ++i) {
    out[i] = stored(
        lined(of.paper, of.fine, of.coarse, both(fine[i], thin), both(coarse[i], thick)), O{});
  }
}

bool any_of(const std::uint8_t* bytes, int count) {
  std::uint64_t any = 0;
  for (; count >= 8; bytes += 8, count -= 8) {
    std::uint64_t eight;
    std::memcpy(&eight, bytes, 8);
    any |= eight;
  }
  for (int i = 0; i < count; ++i) any |= bytes[i];
  return any != 0;
}

// Puts the ink of a row on its paper where a stretch of it has some, and clears the mask.
template <typename O>
void ink_row(O* out, std::int64_t plane, int colours, const Sheet& sheet, const Ink* of, float thin,
             float thick, std::uint8_t* mask) {
  constexpr int kStep = 64;
  for (int begin = 0; begin < sheet.width; begin += kStep) {
    const int count = begin + kStep < sheet.width ? kStep : sheet.width - begin;
    if (!any_of(mask + begin, count)) continue;
    const float* __restrict__ const fine = sheet.fine + begin;
    const float* __restrict__ const coarse = sheet.coarse + begin;
    std::uint8_t* __restrict__ const levels = mask + begin;
    for (int c = 0; c < colours; ++c) {
      O* __restrict__ const to = out + c * plane + begin;
      const Ink ink = of[c];
#pragma omp simd
      for (int i = 0; i < count; ++i) {
        const float paper =
            lined(ink.paper, ink.fine, ink.coarse, both(fine[i], thin), both(coarse[i], thick));
        to[i] = stored(inked(paper, ink.ink, levels[i]), O{});
      }
    }
    std::memset(levels, 0, static_cast<std::size_t>(count));
  }
}

template <typename O>
void write_page(const Draw& job, const Sheet& sheet, std::int64_t n) {
  const double* const look = record<double>(job.looks, n);
  const int colours = static_cast<int>(job.out.size[1]);
  const std::int64_t plane = static_cast<std::int64_t>(sheet.width) * sheet.height;
  O* const page = static_cast<O*>(job.out.data) + n * colours * plane;
  O* const plain = reinterpret_cast<O*>(sheet.plain);
  Ink of[3];
  for (int c = 0; c < colours; ++c) of[c] = ink_of(look, c);
  for (int i = 0; i < sheet.width; ++i) {
    sheet.fine[i] = grid_share(i, look[kOriginX], look[kFinePitch], look[kFineWidth]);
    sheet.coarse[i] = grid_share(i, look[kOriginX], look[kCoarsePitch], look[kCoarseWidth]);
  }
  for (int c = 0; c < colours; ++c) paper_row(plain + c * sheet.width, sheet, of[c], 0, 0);
  const std::size_t bytes = static_cast<std::size_t>(sheet.width) * sizeof(O);
  for (int r = 0; r < sheet.height; ++r) {
    const float thin = grid_share(r, look[kOriginY], look[kFinePitch], look[kFineWidth]);
    const float thick = grid_share(r, look[kOriginY], look[kCoarsePitch], look[kCoarseWidth]);
    O* const out = page + static_cast<std::int64_t>(r) * sheet.width;
    for (int c = 0; c < colours; ++c) {
      if (thin == 0 && thick == 0) {
        std::memcpy(out + c * plane, plain + c * sheet.width, bytes);
      } else {
        paper_row(out + c * plane, sheet, of[c], thin, thick);
      }
    }
    ink_row(out, plane, colours, sheet, of, thin, thick,
            sheet.mask + static_cast<std::int64_t>(r) * sheet.width);
  }
}

}  // namespace

void draw(const Draw& job, Range pages) {
  const bool bytes = job.out.dtype == DType::u8;
  const Sheet sheet = sheet_of(job, pages.worker, bytes ? 1 : 4);
  dispatch_float(job.x.dtype, [&](auto zero) {
    using T = decltype(zero);
    for (std::int64_t n = pages.begin; n < pages.end; ++n) {
      const double* const strips = record<double>(job.strips, n);
      for (std::int64_t p = 0; p < job.strips.size[1]; ++p) {
        put_strip<T>(job, sheet, strips + p * kStrip, n);
      }
      put_strokes(job, sheet, n);
      if (bytes) {
        write_page<std::uint8_t>(job, sheet, n);
      } else {
        write_page<float>(job, sheet, n);
      }
    }
  });
}

}  // namespace ecgfast::rasterize_ecg::ECGFAST_ISA
