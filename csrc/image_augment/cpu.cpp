// CPU kernel of image_augment, compiled once for each instruction set; see contract.h.
//
// A tile goes through all steps in a worker's scratch, which a core's own cache holds.
#include "core/lanes.h"
#include "core/philox_lanes.h"
#include "image_augment/tile.h"

namespace ecgfast::image_augment::ECGFAST_ISA {
namespace {

using Lanes = vec_t<float>;

// Along x into `blurred`, along y into the tile.
void blur(const Sheet& sheet, const Tile& tile, int colour, int radius) {
  float weights[kMostRadius + 1];
  for (int k = 0; k <= radius; ++k) weights[k] = static_cast<float>(tile.plan[kWeights + k]);
  for (int j = 0; j < tile.height + 2 * radius; ++j) {
    const float* __restrict__ const from = sheet.wide + colour * kWide * kWide + j * kWide + radius;
    float* __restrict__ const to = sheet.blurred + j * kSide;
    for (int i = 0; i < tile.width; ++i) to[i] = weights[0] * from[i];
    for (int k = 1; k <= radius; ++k) {
#pragma omp simd
      for (int i = 0; i < tile.width; ++i) to[i] += weights[k] * (from[i - k] + from[i + k]);
    }
  }
  for (int j = 0; j < tile.height; ++j) {
    const float* __restrict__ const from = sheet.blurred + (j + radius) * kSide;
    float* __restrict__ const to = sheet.tile + colour * kSide * kSide + j * kSide;
    for (int i = 0; i < tile.width; ++i) to[i] = weights[0] * from[i];
    for (int k = 1; k <= radius; ++k) {
#pragma omp simd
      for (int i = 0; i < tile.width; ++i) {
        to[i] += weights[k] * (from[i - k * kSide] + from[i + k * kSide]);
      }
    }
  }
}

void shade(const Sheet& sheet, const Tile& tile, int colours) {
  const Slope light = slope_at(tile.plan, kLight, tile.x, tile.y);
  Slope folds[kMostFolds];
  int count = 0;
  for (int f = 0; f < kMostFolds; ++f) {
    const Slope fold = slope_at(tile.plan, kFolds + 4 * f, tile.x, tile.y);
    if (fold.depth != 0) folds[count++] = fold;
  }
  if (light.depth == 0 && count == 0) return;
  for (int j = 0; j < tile.height; ++j) {
    const float dy = static_cast<float>(j);
    float factor[kSide];
#pragma omp simd
    for (int i = 0; i < kSide; ++i) factor[i] = lit(light, static_cast<float>(i), dy);
    for (int f = 0; f < count; ++f) {
#pragma omp simd
      for (int i = 0; i < kSide; ++i) factor[i] *= folded(folds[f], static_cast<float>(i), dy);
    }
    for (int c = 0; c < colours; ++c) {
      float* const levels = sheet.tile + (c * kSide + j) * kSide;
#pragma omp simd
      for (int i = 0; i < tile.width; ++i) levels[i] = clipped(levels[i] * factor[i]);
    }
  }
}

void tone(float* __restrict__ levels, const Tile& tile, int colour) {
  const float factor = static_cast<float>(tile.plan[kFactor + colour]);
  const float added = static_cast<float>(tile.plan[kAdded + colour]);
  const float gamma = static_cast<float>(tile.plan[kGamma]);
  for (int j = 0; j < tile.height; ++j, levels += kSide) {
#pragma omp simd
    for (int i = 0; i < tile.width; ++i) levels[i] = clipped(levels[i] * factor + added);
    if (gamma == 1) continue;
#pragma omp simd
    for (int i = 0; i < tile.width; ++i) levels[i] = toned(levels[i], gamma);
  }
}

void add_noise(float* __restrict__ levels, const Apply& job, const Tile& tile, int colour) {
  const PhiloxKey key = noise_key(tile.plan);
  const float sd = static_cast<float>(tile.plan[kNoise]);
  for (int j = 0; j < tile.height; ++j, levels += kSide) {
    std::uint32_t words[4][kSide / 4];
    philox_lanes(
        words,
        noise_counter(tile.plan, tile.x, tile.y + j, static_cast<int>(job.out.size[3]), colour),
        key);
    float z[kSide];
    for (int half = 0; half < kSide; half += 32) {
#pragma omp simd
      for (int i = 0; i < 8; ++i) {
        const Normals a = normals(words[0][half / 4 + i], words[1][half / 4 + i]);
        const Normals b = normals(words[2][half / 4 + i], words[3][half / 4 + i]);
        z[half + i] = a.first;
        z[half + i + 8] = a.second;
        z[half + i + 16] = b.first;
        z[half + i + 24] = b.second;
      }
    }
#pragma omp simd
    for (int i = 0; i < tile.width; ++i) levels[i] = clipped(levels[i] + sd * z[i]);
  }
}

// Rows to columns, of the first `count` of each.
void turn(float* levels, int count) {
  constexpr int kBlock = kLanes<float>;
  for (int y = 0; y < count; y += kBlock) {
    for (int x = 0; x <= y; x += kBlock) {
      float* const lower = levels + y * kSide + x;
      float* const upper = levels + x * kSide + y;
      Lanes v[kBlock];
      Lanes w[kBlock];
      for (int i = 0; i < kBlock; ++i) v[i] = load(lower + i * kSide);
      for (int i = 0; i < kBlock; ++i) w[i] = load(upper + i * kSide);
      transpose<float>(v);
      transpose<float>(w);
      for (int i = 0; i < kBlock; ++i) store(upper + i * kSide, v[i]);
      for (int i = 0; i < kBlock; ++i) store(lower + i * kSide, w[i]);
    }
  }
}

// Along y, of blocks of which `rows` and `columns` are any use.
template <typename Change>
void change_blocks(float* levels, int rows, int columns, const Change& change) {
  for (int y = 0; y < rows; y += 8) {
    for (int x = 0; x < columns; x += kLanes<float>) {
      Lanes v[8];
      for (int i = 0; i < 8; ++i) v[i] = load(levels + (y + i) * kSide + x);
      change(v, x);
      for (int i = 0; i < 8; ++i) store(levels + (y + i) * kSide + x, v[i]);
    }
  }
}

void lose_plane(float* levels, const Tile& tile, const double* table) {
  // Once turned, a column has what was a row: its frequency along y is x % 8.
  float steps[8][16];
  for (int i = 0; i < 8; ++i) {
    for (int x = 0; x < 16; ++x) steps[i][x] = static_cast<float>(table[x % 8 * 8 + i]);
  }
  const int rows = (tile.height + 7) / 8 * 8;
  const int columns = (tile.width + 7) / 8 * 8;
  const int longer = columns > rows ? columns : rows;
  change_blocks(levels, rows, columns, [](Lanes* v, int) { transform8(v); });
  turn(levels, longer);
  change_blocks(levels, columns, rows, [&](Lanes* v, int x) {
    transform8(v);
    for (int i = 0; i < 8; ++i) v[i] = stepped(v[i], load(&steps[i][x % 16]));
    transform_back8(v);
  });
  turn(levels, longer);
  change_blocks(levels, rows, columns, [](Lanes* v, int) { transform_back8(v); });
}

// The outermost pixels again, to the end of a block and of a vector.
void fill_up(float* levels, const Tile& tile) {
  const int rows = (tile.height + 15) / 16 * 16;
  const int columns = (tile.width + 15) / 16 * 16;
  for (int y = 0; y < tile.height; ++y) {
    float* const row = levels + y * kSide;
    for (int x = tile.width; x < columns; ++x) row[x] = row[tile.width - 1];
  }
  for (int y = tile.height; y < rows; ++y) {
    std::memcpy(levels + y * kSide, levels + (tile.height - 1) * kSide,
                static_cast<std::size_t>(columns) * sizeof(float));
  }
}

void lose(const Sheet& sheet, const Tile& tile, int colours) {
  constexpr int kPlane = kSide * kSide;
  const double* const table = tile.plan + kTables;
  float* const levels = sheet.tile;
  for (int c = 0; c < colours; ++c) fill_up(levels + c * kPlane, tile);
  const int end = (tile.height + 15) / 16 * 16 * kSide;
  if (colours == 3) {
#pragma omp simd
    for (int i = 0; i < end; ++i) {
      to_luma(levels[i], levels[kPlane + i], levels[2 * kPlane + i]);
    }
  } else {
    for (int i = 0; i < end; ++i) levels[i] -= 128.0f;
  }
  for (int c = 0; c < colours; ++c) {
    lose_plane(levels + c * kPlane, tile, c == 0 ? table : table + 64);
  }
  if (colours == 3) {
#pragma omp simd
    for (int i = 0; i < end; ++i) {
      from_luma(levels[i], levels[kPlane + i], levels[2 * kPlane + i]);
    }
  } else {
    for (int i = 0; i < end; ++i) levels[i] += 128.0f;
  }
  for (int c = 0; c < colours; ++c) {
    for (int i = 0; i < end; ++i) levels[c * kPlane + i] = clipped(levels[c * kPlane + i]);
  }
}

template <typename O>
O* row_of(const View& out, std::int64_t n, int colour, int y) {
  return record<O>(out, n) + (colour * out.size[2] + y) * out.size[3];
}

template <typename O>
void write(const Apply& job, const Sheet& sheet, const Tile& tile, int colour) {
  const float scale = static_cast<float>(job.scale[colour]);
  const float shift = static_cast<float>(job.shift[colour]);
  for (int y = 0; y < tile.height; ++y) {
    const float* __restrict__ const from = sheet.tile + (colour * kSide + y) * kSide;
    O* __restrict__ const to = row_of<O>(job.out, tile.n, colour, tile.y + y) + tile.x;
#pragma omp simd
    for (int i = 0; i < tile.width; ++i) to[i] = stored(from[i], scale, shift, O{});
  }
}

template <typename I, typename O>
void apply_tile(const Apply& job, const Sheet& sheet, const Tile& tile) {
  const Page<I> page = page_of<I>(job.pages, tile.n);
  const int radius = static_cast<int>(tile.plan[kRadius]);
  const Target to = radius > 0 ? Target{sheet.wide, kWide * kWide, kWide, radius}
                               : Target{sheet.tile, kSide * kSide, kSide, 0};
  if (tile.plan[kSamples] > 0) {
    gather_levels(job, sheet, tile, page, to);
  } else {
    copy_levels(job, tile, page, to);
  }
  for (int c = 0; radius > 0 && c < page.colours; ++c) blur(sheet, tile, c, radius);
  shade(sheet, tile, page.colours);
  for (int c = 0; c < page.colours; ++c) {
    float* const levels = sheet.tile + c * kSide * kSide;
    if (tile.plan[kToned] != 0) tone(levels, tile, c);
    if (tile.plan[kNoise] != 0) add_noise(levels, job, tile, c);
  }
  if (tile.plan[kQuality] != 0) lose(sheet, tile, page.colours);
  for (int c = 0; c < page.colours; ++c) write<O>(job, sheet, tile, c);
}

// Rows of a record of which no step is on: whole ones, which memory is faster with.
template <typename I, typename O>
void pass_rows(const Apply& job, std::int64_t n, int begin, int end) {
  const Page<I> page = page_of<I>(job.pages, n);
  for (int c = 0; c < page.colours; ++c) {
    const float fill = static_cast<float>(job.fill[c]);
    const float scale = static_cast<float>(job.scale[c]);
    const float shift = static_cast<float>(job.shift[c]);
    for (int y = begin; y < end; ++y) {
      const I* __restrict__ const from = page.pixels + c * page.stride_c + y * page.stride_y;
      O* __restrict__ const to = row_of<O>(job.out, n, c, y);
      if (page.stride_x == 1) {
#pragma omp simd
        for (int i = 0; i < page.width; ++i) to[i] = passed(from[i], fill, scale, shift, O{});
      } else {
        for (int i = 0; i < page.width; ++i) {
          to[i] = passed(from[i * page.stride_x], fill, scale, shift, O{});
        }
      }
    }
  }
}

template <typename I, typename O>
void apply_tiles(const Apply& job, Range tiles) {
  const Sheet sheet = sheet_of(job, tiles.worker);
  const int width = static_cast<int>(job.out.size[3]);
  const int height = static_cast<int>(job.out.size[2]);
  const std::int64_t across = (width + kSide - 1) / kSide;
  const std::int64_t each = across * ((height + kSide - 1) / kSide);
  for (std::int64_t i = tiles.begin; i < tiles.end; ++i) {
    const std::int64_t n = i / each;
    const std::int64_t which = i % each;
    const double* const plan = record<const double>(job.plan, n);
    if (is_plain(plan)) {
      pass_rows<I, O>(job, n, static_cast<int>(height * which / each),
                      static_cast<int>(height * (which + 1) / each));
      continue;
    }
    const int x = static_cast<int>(which % across) * kSide;
    const int y = static_cast<int>(which / across) * kSide;
    apply_tile<I, O>(job, sheet,
                     {n, x, y, width - x < kSide ? width - x : kSide,
                      height - y < kSide ? height - y : kSide, plan});
  }
}

template <typename I>
void apply_from(const Apply& job, Range tiles) {
  if (job.out.dtype == DType::u8) return apply_tiles<I, std::uint8_t>(job, tiles);
  apply_tiles<I, float>(job, tiles);
}

}  // namespace

void apply(const Apply& job, Range tiles) {
  if (job.pages.dtype == DType::u8) return apply_from<std::uint8_t>(job, tiles);
  apply_from<float>(job, tiles);
}

}  // namespace ecgfast::image_augment::ECGFAST_ISA
