// The columns of a page's plan, and what CPU and CUDA draw alike.
#pragma once

#include <cmath>

#include "core/dispatch.h"
#include "rasterize_ecg/contract.h"

namespace ecgfast::rasterize_ecg {

// looks
constexpr int kOriginX = 0;
constexpr int kOriginY = 1;
constexpr int kFinePitch = 2;
constexpr int kFineWidth = 3;
constexpr int kCoarsePitch = 4;
constexpr int kCoarseWidth = 5;
constexpr int kPaper = 6;  // 3 columns each
constexpr int kFine = 9;
constexpr int kCoarse = 12;
constexpr int kInk = 15;
constexpr int kLook = 18;

// strips
constexpr int kLead = 0;
constexpr int kFirst = 1;
constexpr int kCount = 2;
constexpr int kX0 = 3;
constexpr int kDx = 4;
constexpr int kY0 = 5;
constexpr int kDy = 6;
constexpr int kTop = 7;
constexpr int kBottom = 8;
constexpr int kStripRadius = 9;
constexpr int kStrip = 10;

// strokes: x1, y1, x2, y2, radius
constexpr int kStroke = 5;

// groups of strokes: the box that holds them all, left, top, right, bottom; begin, end
constexpr int kGroup = 6;

constexpr int kSpare = 16;  // rows below a page, on the CPU

constexpr double kFarthest = 4194304;  // pixels: beyond, a float no longer knows where it is

// A line between two points, from the corner of what is being drawn; y between which it shows.
struct Segment {
  float x1, y1, x2, y2, radius;
  int top, bottom;  // rows, the last not included
};

// The whole part of a number that is brought into [low, high]; low of a NaN.
ECGFAST_HD static inline int whole_in(float value, int low, int high) {
  return !(value > static_cast<float>(low))  ? low
         : value >= static_cast<float>(high) ? high
                                             : static_cast<int>(value);
}

// 255 times the share of a pixel that a line covers at the square of a distance from its centre.
ECGFAST_HD static inline int level_of(float radius, float square) {
  const float covered = radius - sqrtf(square);
  const float share = covered < 0.0f ? 0.0f : covered > 1.0f ? 1.0f : covered;
  return static_cast<int>(share * 255.0f + 0.5f);
}

// The square of a point's distance from a segment; `inverse` is that of the square of its length.
ECGFAST_HD static inline float square_from(const Segment& s, float x, float y, float inverse) {
  const float ex = s.x2 - s.x1;
  const float ey = s.y2 - s.y1;
  float along = ((x - s.x1) * ex + (y - s.y1) * ey) * inverse;
  along = along < 0.0f ? 0.0f : along > 1.0f ? 1.0f : along;
  const float px = x - s.x1 - along * ex;
  const float py = y - s.y1 - along * ey;
  return px * px + py * py;
}

// Calls put(column, row, level) for every pixel of [0, width) x [0, height) that a line touches.
template <typename Put>
ECGFAST_HD static inline void draw_segment(const Segment& s, int width, int height,
                                           const Put& put) {
  const float ex = s.x2 - s.x1;
  const float ey = s.y2 - s.y1;
  const float length = ex * ex + ey * ey;
  const float inverse = length > 0.0f ? 1.0f / length : 0.0f;
  const float left = (ex < 0.0f ? s.x2 : s.x1) - s.radius;
  const float right = (ex < 0.0f ? s.x1 : s.x2) + s.radius;
  const float above = (ey < 0.0f ? s.y2 : s.y1) - s.radius;
  const float below = (ey < 0.0f ? s.y1 : s.y2) + s.radius;
  const int first = s.top > 0 ? s.top : 0;
  const int last = s.bottom < height ? s.bottom : height;
  const int from_x = whole_in(left, 0, width);
  const int to_x = whole_in(right + 1.0f, 0, width);
  const int from_y = whole_in(above, first, last);
  const int to_y = whole_in(below + 1.0f, first, last);
  for (int row = from_y; row < to_y; ++row) {
    const float y = static_cast<float>(row) + 0.5f;
    for (int column = from_x; column < to_x; ++column) {
      const float square = square_from(s, static_cast<float>(column) + 0.5f, y, inverse);
      const int level = square < s.radius * s.radius ? level_of(s.radius, square) : 0;
      if (level > 0) put(column, row, level);
    }
  }
}

// The length of [0, t] that lines cover, all at k pitch and `width` wide, up to a constant.
ECGFAST_HD static inline double lines_until(double t, double pitch, double width) {
  const double from = t + width / 2;
  const double count = floor(from / pitch);
  const double rest = from - count * pitch;
  return count * width + (rest < width ? rest : width);
}

// g(i) of contract.h.
ECGFAST_HD static inline float grid_share(std::int64_t i, double origin, double pitch,
                                          double width) {
  if (!(pitch > 0) || !(width > 0)) return 0.0f;
  const double at = static_cast<double>(i) - origin;
  return static_cast<float>(lines_until(at + 1, pitch, width) - lines_until(at, pitch, width));
}

ECGFAST_HD static inline float both(float a, float b) { return a + b - a * b; }

// The paper with its grid, of one colour: fine lines, then coarse ones.
ECGFAST_HD static inline float lined(float paper, float fine, float coarse, float of_fine,
                                     float of_coarse) {
  const float thin = paper + of_fine * (fine - paper);
  return thin + of_coarse * (coarse - thin);
}

ECGFAST_HD static inline float inked(float paper, float ink, int level) {
  return paper + static_cast<float>(level) * (1.0f / 255.0f) * (ink - paper);
}

}  // namespace ecgfast::rasterize_ecg
