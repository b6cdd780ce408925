// Where the levels of a tile come from, on the CPU: included by cpu.cpp alone, all of it in an
// anonymous namespace, so that no instruction set can lend code to another.
//
// What a tile is read from is brought to levels first, the paper around the page with it, so that
// no sample has to look where it is; a tile that shows too much of a page for that is read pixel by
// pixel.
#pragma once

#include <cstring>

#include "core/dispatch.h"
#include "image_augment/plan.h"

namespace ecgfast::image_augment::ECGFAST_ISA {
namespace {

// A worker's scratch.
struct Sheet {
  float* staged;   // kStaged a colour
  float* wide;     // kWide x kWide a colour, what will be blurred
  float* blurred;  // kWide x kSide, along x
  float* tile;     // kSide x kSide a colour
};

Sheet sheet_of(const Apply& job, int worker) {
  const std::int64_t colours = job.out.size[1];
  float* const first = reinterpret_cast<float*>(record<std::uint8_t>(job.scratch, worker));
  float* const wide = first + colours * kStaged;
  float* const blurred = wide + colours * kWide * kWide;
  return {first, wide, blurred, blurred + kWide * kSide};
}

// A tile: its corner, what of it lies on the output, and the record's plan.
struct Tile {
  std::int64_t n;
  int x, y, width, height;
  const double* plan;
};

// Where levels of a tile go: rows of `stride`, `radius` more than the tile on each side.
struct Target {
  float* levels;
  std::int64_t plane;
  int stride, radius;
};

template <typename I>
struct Page {
  const I* pixels;
  std::int64_t stride_c, stride_y, stride_x;
  int colours, width, height;
};

template <typename I>
Page<I> page_of(const View& view, std::int64_t n) {
  return {record<const I>(view, n),
          view.stride[1],
          view.stride[2],
          view.stride[3],
          static_cast<int>(view.size[1]),
          static_cast<int>(view.size[3]),
          static_cast<int>(view.size[2])};
}

int within(int at, int count) { return at < 0 ? 0 : at < count ? at : count - 1; }

// Levels of a row of the page from column `left` on, paper where the page has none.
template <typename I>
void stage_row(float* __restrict__ to, const Page<I>& page, int colour, int y, int left, int count,
               float fill) {
  if (y < 0 || y >= page.height) {
    for (int i = 0; i < count; ++i) to[i] = fill;
    return;
  }
  const int begin = left < 0 ? (-left < count ? -left : count) : 0;
  const int until = page.width - left;
  const int end = until < begin ? begin : until < count ? until : count;
  for (int i = 0; i < begin; ++i) to[i] = fill;
  for (int i = end; i < count; ++i) to[i] = fill;
  const I* __restrict__ const from =
      page.pixels + colour * page.stride_c + y * page.stride_y + left * page.stride_x;
  if (page.stride_x == 1) {
#pragma omp simd
    for (int i = begin; i < end; ++i) to[i] = level_of(from[i], fill);
  } else {
    for (int i = begin; i < end; ++i) to[i] = level_of(from[i * page.stride_x], fill);
  }
}

// Pixels as they are, the outermost ones again beyond the output.
template <typename I>
void copy_levels(const Apply& job, const Tile& tile, const Page<I>& page, const Target& to) {
  const int columns = tile.width + 2 * to.radius;
  const int left = tile.x - to.radius;
  for (int c = 0; c < page.colours; ++c) {
    const float fill = static_cast<float>(job.fill[c]);
    for (int j = 0; j < tile.height + 2 * to.radius; ++j) {
      float* const row = to.levels + c * to.plane + j * to.stride;
      stage_row(row, page, c, within(tile.y - to.radius + j, page.height), left, columns, fill);
      const int begin = left < 0 ? -left : 0;
      const int end = page.width - left < columns ? page.width - left : columns;
      for (int i = 0; i < begin; ++i) row[i] = row[begin];
      for (int i = end; i < columns; ++i) row[i] = row[end - 1];
    }
  }
}

// The part of a page that a tile is read from, in pixels from those of its Map.
struct Box {
  std::int64_t left, top, width, height;
};

// Of corners, since lines stay lines; a pixel more on each side, for what was rounded.
Box box_of(const Map& map, float left, float top, float right, float bottom) {
  const Point corners[4] = {point_at(map, left, top), point_at(map, right, top),
                            point_at(map, left, bottom), point_at(map, right, bottom)};
  float low_u = corners[0].u, high_u = low_u, low_v = corners[0].v, high_v = low_v;
  for (int i = 1; i < 4; ++i) {
    low_u = corners[i].u < low_u ? corners[i].u : low_u;
    high_u = corners[i].u > high_u ? corners[i].u : high_u;
    low_v = corners[i].v < low_v ? corners[i].v : low_v;
    high_v = corners[i].v > high_v ? corners[i].v : high_v;
  }
  const std::int64_t from_x = floor_of(low_u) - 1;
  const std::int64_t from_y = floor_of(low_v) - 1;
  return {from_x, from_y, floor_of(high_u) + 3 - from_x, floor_of(high_v) + 3 - from_y};
}

// Samples of a row of the output, the same for all colours.
struct Samples {
  int u[kWide], v[kWide];
  float x[kWide], y[kWide];
};

void place_samples(Samples& to, const Map& map, const float* __restrict__ dx, float shift, float dy,
                   int count) {
#pragma omp simd
  for (int i = 0; i < count; ++i) {
    const Point point = point_at(map, dx[i] + shift, dy);
    const int u = floor_of(point.u);
    const int v = floor_of(point.v);
    to.u[i] = u;
    to.v[i] = v;
    to.x[i] = point.u - static_cast<float>(u);
    to.y[i] = point.v - static_cast<float>(v);
  }
}

void add_staged(float* __restrict__ sums, const Samples& at, const float* __restrict__ staged,
                const Box& box, int count) {
  const int left = static_cast<int>(box.left);
  const int top = static_cast<int>(box.top);
  const int stride = static_cast<int>(box.width);
#pragma omp simd
  for (int i = 0; i < count; ++i) {
    const int index = (at.v[i] - top) * stride + at.u[i] - left;
    sums[i] += between(staged[index], staged[index + 1], staged[index + stride],
                       staged[index + stride + 1], at.x[i], at.y[i]);
  }
}

template <typename I>
float pixel_at(const Page<I>& page, int colour, int x, int y, float fill) {
  if (x < 0 || y < 0 || x >= page.width || y >= page.height) return fill;
  return level_of(page.pixels[colour * page.stride_c + y * page.stride_y + x * page.stride_x],
                  fill);
}

template <typename I>
void add_pixels(float* __restrict__ sums, const Samples& at, const Page<I>& page, int colour,
                const Map& map, float fill, int count) {
  for (int i = 0; i < count; ++i) {
    const int x = map.left + at.u[i];
    const int y = map.top + at.v[i];
    sums[i] += between(pixel_at(page, colour, x, y, fill), pixel_at(page, colour, x + 1, y, fill),
                       pixel_at(page, colour, x, y + 1, fill),
                       pixel_at(page, colour, x + 1, y + 1, fill), at.x[i], at.y[i]);
  }
}

// Pixels at the places that the plan's map gives them.
template <typename I>
void gather_levels(const Apply& job, const Sheet& sheet, const Tile& tile, const Page<I>& page,
                   const Target& to) {
  const Map map = map_at(tile.plan, tile.x, tile.y);
  const int each = static_cast<int>(tile.plan[kSamples]);
  const float step = 1.0f / static_cast<float>(each);
  const int rows = tile.height + 2 * to.radius;
  const int columns = tile.width + 2 * to.radius;
  const int last_x = static_cast<int>(job.out.size[3]);
  const int last_y = static_cast<int>(job.out.size[2]);
  float dx[kWide];
  for (int i = 0; i < columns; ++i) {
    dx[i] = static_cast<float>(within(tile.x - to.radius + i, last_x) - tile.x);
  }
  const float top = static_cast<float>(within(tile.y - to.radius, last_y) - tile.y);
  const float bottom =
      static_cast<float>(within(tile.y - to.radius + rows - 1, last_y) + 1 - tile.y);
  const Box box = box_of(map, dx[0], top, dx[columns - 1] + 1.0f, bottom);
  const bool staged = box.width <= kStaged && box.width * box.height <= kStaged;
  for (int c = 0; staged && c < page.colours; ++c) {
    for (std::int64_t j = 0; j < box.height; ++j) {
      stage_row(sheet.staged + c * kStaged + j * box.width, page, c,
                map.top + static_cast<int>(box.top + j), map.left + static_cast<int>(box.left),
                static_cast<int>(box.width), static_cast<float>(job.fill[c]));
    }
  }
  Samples at;
  for (int j = 0; j < rows; ++j) {
    const int y = within(tile.y - to.radius + j, last_y) - tile.y;
    for (int c = 0; c < page.colours; ++c) {
      std::memset(to.levels + c * to.plane + j * to.stride, 0,
                  static_cast<std::size_t>(columns) * sizeof(float));
    }
    for (int s = 0; s < each * each; ++s) {
      const float shift = (static_cast<float>(s % each) + 0.5f) * step;
      const float dy = static_cast<float>(y) + (static_cast<float>(s / each) + 0.5f) * step;
      place_samples(at, map, dx, shift, dy, columns);
      for (int c = 0; c < page.colours; ++c) {
        float* const sums = to.levels + c * to.plane + j * to.stride;
        if (staged) {
          add_staged(sums, at, sheet.staged + c * kStaged, box, columns);
        } else {
          add_pixels(sums, at, page, c, map, static_cast<float>(job.fill[c]), columns);
        }
      }
    }
    for (int c = 0; each > 1 && c < page.colours; ++c) {
      float* const sums = to.levels + c * to.plane + j * to.stride;
      for (int i = 0; i < columns; ++i) sums[i] *= step * step;
    }
  }
}

}  // namespace
}  // namespace ecgfast::image_augment::ECGFAST_ISA
