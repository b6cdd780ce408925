// The columns of a record's plan, and the arithmetic that CPU and CUDA share.
#pragma once

#include "core/philox.h"
#include "image_augment/contract.h"

namespace ecgfast::image_augment {

constexpr int kMap = 0;       // M, 9 columns, a row of it after the other
constexpr int kSamples = 9;   // K; 0 where pixels are read as they are
constexpr int kRadius = 10;   // r
constexpr int kWeights = 11;  // of neighbours 0 to 6 pixels away
constexpr int kLight = 18;    // gx, gy, g0, a
constexpr int kFolds = 22;    // nx, ny, c, d of each
constexpr int kToned = 38;    // whether factor, added, gamma are to be looked at
constexpr int kFactor = 39;   // 3 columns
constexpr int kAdded = 42;    // 3 columns
constexpr int kGamma = 45;
constexpr int kNoise = 46;    // SD
constexpr int kKey = 47;      // the seed's lower and upper half
constexpr int kId = 49;       // the record id's
constexpr int kQuality = 51;  // 0 for no loss
constexpr int kTables =
    52;  // steps of Y, then of Cb and Cr, 64 each, a row of a block after another
constexpr int kPlan = 180;

constexpr int kMostSamples = 4;
constexpr int kMostRadius = 6;
constexpr int kMostFolds = 4;
constexpr int kSide = 64;                       // of a tile on the CPU
constexpr int kWide = kSide + 2 * kMostRadius;  // of a tile that will be blurred
constexpr int kStaged = 192 * 192;              // pixels of a page that a tile may be read from
constexpr int kNoisePurpose = 16;               // augment's are below
constexpr double kFarthest = 4194304;           // pixels from the page that a plan may point to

// Floats of scratch that a worker needs.
static inline std::int64_t scratch_floats(std::int64_t colours) {
  return colours * (kStaged + kWide * kWide + kSide * kSide) + kWide * kSide;
}

// No step is on: the page goes straight to the output.
template <typename Plan>
ECGFAST_HD static inline bool is_plain(const Plan& plan) {
  bool folds = false;
  for (int f = 0; f < kMostFolds; ++f) folds = folds || plan[kFolds + 4 * f + 3] != 0;
  return plan[kSamples] == 0 && plan[kRadius] == 0 && plan[kLight + 3] == 0 && !folds &&
         plan[kToned] == 0 && plan[kNoise] == 0 && plan[kQuality] == 0;
}

ECGFAST_HD static inline float clipped(float level) {
  const float low = level > 0.0f ? level : 0.0f;
  return low < 255.0f ? low : 255.0f;
}

// What is stored of a page as a level; `fill` of a NaN.
ECGFAST_HD static inline float level_of(std::uint8_t value, float) {
  return static_cast<float>(value);
}
template <typename T>
ECGFAST_HD static inline float level_of(T value, float fill) {
  const float number = static_cast<float>(value);
  return choose(number == number, clipped(number * 255.0f), fill);
}

ECGFAST_HD static inline int floor_of(float x) {
  const int whole = static_cast<int>(x);
  return whole - static_cast<int>(static_cast<float>(whole) > x);
}

// To the nearest whole number, the even one of two; |x| < 2^22.
template <typename V>
ECGFAST_HD static inline V rounded(V x) {
  return (x + 12582912.0f) - 12582912.0f;
}

// Where a tile's pixels lie on the page: at (left, top) whole pixels and
// (u0 + (ux dx + uy dy) / w, v0 + (vx dx + vy dy) / w), w = 1 + wx dx + wy dy, dx and dy from the
// tile's corner; whole numbers are centres of pixels.
struct Map {
  float u0, ux, uy, v0, vx, vy, wx, wy;
  int left, top;
};

template <typename Plan>
ECGFAST_HD static inline Map map_at(const Plan& plan, int x, int y) {
  const double w = plan[kMap + 6] * x + plan[kMap + 7] * y + plan[kMap + 8];
  const double u = (plan[kMap + 0] * x + plan[kMap + 1] * y + plan[kMap + 2]) / w;
  const double v = (plan[kMap + 3] * x + plan[kMap + 4] * y + plan[kMap + 5]) / w;
  const double left = floor(u - 0.5);
  const double top = floor(v - 0.5);
  return {static_cast<float>(u - 0.5 - left),
          static_cast<float>((plan[kMap + 0] - plan[kMap + 6] * u) / w),
          static_cast<float>((plan[kMap + 1] - plan[kMap + 7] * u) / w),
          static_cast<float>(v - 0.5 - top),
          static_cast<float>((plan[kMap + 3] - plan[kMap + 6] * v) / w),
          static_cast<float>((plan[kMap + 4] - plan[kMap + 7] * v) / w),
          static_cast<float>(plan[kMap + 6] / w),
          static_cast<float>(plan[kMap + 7] / w),
          static_cast<int>(left),
          static_cast<int>(top)};
}

struct Point {
  float u, v;
};

ECGFAST_HD static inline Point point_at(const Map& map, float dx, float dy) {
  const float inverse = 1.0f / (1.0f + map.wx * dx + map.wy * dy);
  return {map.u0 + (map.ux * dx + map.uy * dy) * inverse,
          map.v0 + (map.vx * dx + map.vy * dy) * inverse};
}

// Between four pixels, at shares x and y.
ECGFAST_HD static inline float between(float upper_left, float upper_right, float lower_left,
                                       float lower_right, float x, float y) {
  const float upper = upper_left + x * (upper_right - upper_left);
  const float lower = lower_left + x * (lower_right - lower_left);
  return upper + y * (lower - upper);
}

// c + nx x + ny y of a light or a fold, from the centre of a tile's first pixel on.
struct Slope {
  float at, x, y, depth;
};

template <typename Plan>
ECGFAST_HD static inline Slope slope_at(const Plan& plan, int column, int x, int y) {
  const double at = plan[column + 2] + plan[column] * (x + 0.5) + plan[column + 1] * (y + 0.5);
  return {static_cast<float>(at), static_cast<float>(plan[column]),
          static_cast<float>(plan[column + 1]), static_cast<float>(plan[column + 3])};
}

ECGFAST_HD static inline float lit(const Slope& slope, float dx, float dy) {
  const float s = slope.at + slope.x * dx + slope.y * dy;
  return 1.0f - slope.depth * (s * s);
}

ECGFAST_HD static inline float folded(const Slope& slope, float dx, float dy) {
  const float t = slope.at + slope.x * dx + slope.y * dy;
  const float inside = 1.0f - t * t;
  const float near = inside > 0.0f ? inside : 0.0f;
  return 1.0f - slope.depth * (0.6328125f * (near * near) * (1.0f + 3.0f * t));
}

// 255 (level / 255)^gamma by logarithm and exponential of base 2, without branches; within 2e-4 of
// it for gamma from 1/4 to 4. Polynomials as in core/philox.h, and Taylor's.
ECGFAST_HD static inline float toned(float level, float gamma) {
  const float share = level * (1.0f / 255.0f);
  const std::uint32_t whole = (word_of(share) - 0x3f3504f3u) & 0xff800000u;
  const float f = float_of(word_of(share) - whole) - 1.0f;
  const float e = static_cast<float>(static_cast<std::int32_t>(whole) >> 23);
  float p = -7.634429906e-02f;
  p = p * f + 1.276155036e-01f;
  p = p * f + -1.316019505e-01f;
  p = p * f + 1.420176247e-01f;
  p = p * f + -1.662335648e-01f;
  p = p * f + 2.000122667e-01f;
  p = p * f + -2.500082106e-01f;
  p = p * f + 3.333333171e-01f;
  const float log1p = f + f * f * (f * p - 0.5f);
  const float power = gamma * (e + 1.442695041f * log1p);
  const float most = power > -126.0f ? power : -126.0f;
  const float n = rounded(most);
  const float x = most - n;
  float q = 1.540353039e-04f;
  q = q * x + 1.333355815e-03f;
  q = q * x + 9.618129108e-03f;
  q = q * x + 5.550410866e-02f;
  q = q * x + 2.402265070e-01f;
  q = q * x + 6.931471806e-01f;
  q = q * x + 1.0f;
  const std::uint32_t scale = static_cast<std::uint32_t>(static_cast<std::int32_t>(n) + 127) << 23;
  return choose(level > 0.0f, 255.0f * (q * float_of(scale)), 0.0f);
}

// The first counter of a row of 32 pixels, and what of it does not count.
template <typename Plan>
ECGFAST_HD static inline PhiloxWords noise_counter(const Plan& plan, int x, int y, int width,
                                                   int colour) {
  const std::uint32_t row = 8u * static_cast<std::uint32_t>((width + 31) / 32);
  return {{row * static_cast<std::uint32_t>(y) + 8u * static_cast<std::uint32_t>(x / 32),
           static_cast<std::uint32_t>(kNoisePurpose) << 24 | static_cast<std::uint32_t>(colour),
           static_cast<std::uint32_t>(plan[kId]), static_cast<std::uint32_t>(plan[kId + 1])}};
}

template <typename Plan>
ECGFAST_HD static inline PhiloxKey noise_key(const Plan& plan) {
  return {{static_cast<std::uint32_t>(plan[kKey]), static_cast<std::uint32_t>(plan[kKey + 1])}};
}

// Red, green, blue to Y - 128, Cb, Cr, and back. Of a grey Y is exactly that, Cb and Cr are 0.
template <typename V>
ECGFAST_HD static inline void to_luma(V& red, V& green, V& blue) {
  const V y = green + 0.299f * (red - green) + 0.114f * (blue - green);
  const V cb = 0.5643340858f * (blue - y);
  const V cr = 0.7132667618f * (red - y);
  red = y - 128.0f;
  green = cb;
  blue = cr;
}
template <typename V>
ECGFAST_HD static inline void from_luma(V& y, V& cb, V& cr) {
  const V level = y + 128.0f;
  const V red = level + 1.402f * cr;
  const V green = level - 0.3441362862f * cb - 0.7141362862f * cr;
  cr = level + 1.772f * cb;
  cb = green;
  y = red;
}

// sqrt(2) cos(k pi / 16)
constexpr float kC1 = 1.387039845f;
constexpr float kC2 = 1.306562965f;
constexpr float kC3 = 1.175875602f;
constexpr float kC5 = 0.785694958f;
constexpr float kC6 = 0.541196100f;
constexpr float kC7 = 0.275899379f;

// T v, in place.
template <typename V>
ECGFAST_HD static inline void transform8(V* v) {
  const V s0 = v[0] + v[7], s1 = v[1] + v[6], s2 = v[2] + v[5], s3 = v[3] + v[4];
  const V d0 = v[0] - v[7], d1 = v[1] - v[6], d2 = v[2] - v[5], d3 = v[3] - v[4];
  const V e0 = s0 + s3, e1 = s1 + s2, e2 = s0 - s3, e3 = s1 - s2;
  v[0] = e0 + e1;
  v[4] = e0 - e1;
  v[2] = kC2 * e2 + kC6 * e3;
  v[6] = kC6 * e2 - kC2 * e3;
  v[1] = kC1 * d0 + kC3 * d1 + kC5 * d2 + kC7 * d3;
  v[3] = kC3 * d0 - kC7 * d1 - kC1 * d2 - kC5 * d3;
  v[5] = kC5 * d0 - kC1 * d1 + kC7 * d2 + kC3 * d3;
  v[7] = kC7 * d0 - kC5 * d1 + kC3 * d2 - kC1 * d3;
}

// T' v, in place.
template <typename V>
ECGFAST_HD static inline void transform_back8(V* v) {
  const V p0 = v[0] + v[4], p1 = v[0] - v[4];
  const V q0 = kC2 * v[2] + kC6 * v[6], q1 = kC6 * v[2] - kC2 * v[6];
  const V e0 = p0 + q0, e1 = p1 + q1, e2 = p1 - q1, e3 = p0 - q0;
  const V o0 = kC1 * v[1] + kC3 * v[3] + kC5 * v[5] + kC7 * v[7];
  const V o1 = kC3 * v[1] - kC7 * v[3] - kC1 * v[5] - kC5 * v[7];
  const V o2 = kC5 * v[1] - kC1 * v[3] + kC7 * v[5] + kC3 * v[7];
  const V o3 = kC7 * v[1] - kC5 * v[3] + kC3 * v[5] - kC1 * v[7];
  v[0] = e0 + o0;
  v[1] = e1 + o1;
  v[2] = e2 + o2;
  v[3] = e3 + o3;
  v[4] = e3 - o3;
  v[5] = e2 - o2;
  v[6] = e1 - o1;
  v[7] = e0 - o0;
}

// An element of T X T' to the nearest multiple of its step, over 8.
template <typename V>
ECGFAST_HD static inline V stepped(V sum, V step) {
  return rounded(sum / (8.0f * step)) * (0.125f * step);
}

ECGFAST_HD static inline std::uint8_t stored(float level, float, float, std::uint8_t) {
  return static_cast<std::uint8_t>(level + 0.5f);
}
template <typename O>
ECGFAST_HD static inline O stored(float level, float scale, float shift, O) {
  return static_cast<O>(level * (1.0f / 255.0f) * scale + shift);
}

// What is stored of a page on its way to the output, where nothing else is done to it. Floats that
// stay floats are not brought to levels.
template <typename O>
ECGFAST_HD static inline O passed(std::uint8_t value, float fill, float scale, float shift, O) {
  return stored(level_of(value, fill), scale, shift, O{});
}
template <typename T>
ECGFAST_HD static inline std::uint8_t passed(T value, float fill, float, float, std::uint8_t) {
  return stored(level_of(value, fill), 1.0f, 0.0f, std::uint8_t{});
}
ECGFAST_HD static inline std::uint8_t passed(std::uint8_t value, float, float, float,
                                             std::uint8_t) {
  return value;
}
template <typename T, typename O>
ECGFAST_HD static inline O passed(T value, float fill, float scale, float shift, O) {
  const float number = static_cast<float>(value);
  const float low = number > 0.0f ? number : 0.0f;
  const float inside = low < 1.0f ? low : 1.0f;
  return static_cast<O>(choose(number == number, inside, fill * (1.0f / 255.0f)) * scale + shift);
}

}  // namespace ecgfast::image_augment
