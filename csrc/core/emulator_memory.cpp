// The memory of the emulator: what was written, by whom, and when; see emulator.h.
#include <algorithm>
#include <cstring>
#include <deque>
#include <iterator>
#include <memory>
#include <stdexcept>
#include <utility>
#include <vector>

#include "core/emulator.h"

namespace ecgfast::emulator {

// ---- global memory

struct Buffer {
  View view;
  bool wholly;  // an output: to be written in every element
  std::string kernel;
  std::int64_t reach;                 // elements, gaps between rows included
  std::vector<std::uint32_t> writer;  // serial of the block that wrote an element last, 0: nobody
  std::vector<char> before;           // the bytes as the face left them
  std::vector<char> result;           // the bytes after the first schedule
  char* data() const { return static_cast<char*>(view.data); }
};

namespace {

constexpr std::uint32_t kByAtomics = 0xffffffffu;
constexpr int kNaN = 0xff;  // bytes that make a NaN of every float type, and -1

std::vector<std::unique_ptr<Buffer>> buffers;
bool first_schedule = true;

int bytes_of(DType dtype) {
  constexpr int kBytes[] = {2, 2, 4, 8, 1, 2, 4, 8};
  return kBytes[static_cast<int>(dtype)];
}

std::string written_out(const std::int64_t* values, int dims) {
  std::string text = "(";
  for (int d = 0; d < dims; ++d) text += (d == 0 ? "" : ", ") + std::to_string(values[d]);
  return text + ")";
}

// Calls body(offset in elements, index) for every element of a view, in C order.
template <typename Body>
void for_each_element(const View& view, const Body& body) {
  if (extent(view, 0) == 0) return;
  std::int64_t index[kMaxDims] = {};
  std::int64_t offset = 0;
  for (;;) {
    body(offset, index);
    int d = view.dims - 1;
    for (; d >= 0; --d) {
      offset += view.stride[d];
      if (++index[d] < view.size[d]) break;
      offset -= view.size[d] * view.stride[d];
      index[d] = 0;
    }
    if (d < 0) return;
  }
}

void poison(Buffer& buffer) {
  const int bytes = bytes_of(buffer.view.dtype);
  for_each_element(buffer.view, [&](std::int64_t offset, const std::int64_t*) {
    std::memset(buffer.data() + offset * bytes, kNaN, bytes);
  });
}

void check_result(Buffer& buffer) {
  const View& view = buffer.view;
  const int bytes = bytes_of(view.dtype);
  std::int64_t missing = 0;
  std::int64_t different = 0;
  std::string first;
  const auto note = [&](std::int64_t& counter, const std::int64_t* index) {
    if (++counter == 1) first = written_out(index, view.dims);
  };
  for_each_element(view, [&](std::int64_t offset, const std::int64_t* index) {
    if (buffer.wholly && buffer.writer[offset] == 0) note(missing, index);
  });
  const std::string shape = written_out(view.size, view.dims);
  if (missing > 0) {
    throw std::runtime_error(buffer.kernel + ": of its output " + shape + " " +
                             std::to_string(missing) + " elements were left unwritten, first " +
                             first);
  }
  if (first_schedule) {
    buffer.result.assign(buffer.data(), buffer.data() + buffer.reach * bytes);
    return;
  }
  for_each_element(view, [&](std::int64_t offset, const std::int64_t* index) {
    if (std::memcmp(buffer.data() + offset * bytes, &buffer.result[offset * bytes], bytes) != 0) {
      note(different, index);
    }
  });
  if (different > 0) {
    throw std::runtime_error(buffer.kernel + ": of its output " + shape + " " +
                             std::to_string(different) +
                             " elements depend on the order in which threads run, first " + first);
  }
}

}  // namespace

void check_dtype(const View& view, bool floating, std::size_t bytes) {
  const bool is_floating = view.dtype <= DType::f64;
  if (floating != is_floating || static_cast<int>(bytes) != bytes_of(view.dtype)) {
    trap("takes a view " + written_out(view.size, view.dims) + " of another dtype for one of " +
         std::to_string(8 * bytes) + "-bit " + (floating ? "floats" : "integers"));
  }
}

std::int64_t extent(const View& view, int first_axis) {
  std::int64_t last = 0;
  for (int d = 0; d < view.dims; ++d) {
    if (view.size[d] == 0) return 0;
    if (d >= first_axis) last += (view.size[d] - 1) * view.stride[d];
  }
  return last + 1;
}

Buffer* written(const View& view, bool wholly) {
  const std::int64_t reach = extent(view, 0);
  if (reach == 0) return nullptr;
  for (const auto& known : buffers) {
    if (known->view.data == view.data && known->reach == reach) {
      if (known->wholly != wholly) trap("takes a view as an output here, for update() elsewhere");
      return known.get();
    }
  }
  auto fresh = std::make_unique<Buffer>(Buffer{view, wholly, kernel_name(), reach, {}, {}, {}});
  fresh->before.assign(fresh->data(), fresh->data() + reach * bytes_of(view.dtype));
  fresh->writer.assign(static_cast<std::size_t>(reach), 0);
  if (wholly) poison(*fresh);
  buffers.push_back(std::move(fresh));
  return buffers.back().get();
}

void touch_global(Buffer* buffer, const void* address, int bytes, Access access) {
  const int size = bytes_of(buffer->view.dtype);
  std::int64_t element = (static_cast<const char*>(address) - buffer->data()) / size;
  for (int done = 0; done < bytes; done += size, ++element) {
    std::uint32_t& writer = buffer->writer[static_cast<std::size_t>(element)];
    const bool reads = access == Access::read || access == Access::atomic;
    if (reads && writer == 0 && buffer->wholly) {
      trap("reads element " + std::to_string(element) + " of the output " +
           written_out(buffer->view.size, buffer->view.dims) +
           ", which nobody has written (const T for what is only read)");
    }
    if (access == Access::read) continue;
    if (access == Access::write && writer >= now.first_serial && writer != now.serial &&
        writer != kByAtomics) {
      trap("writes element " + std::to_string(element) + " of the output " +
           written_out(buffer->view.size, buffer->view.dims) +
           ", into which another block of the launch has written something else");
    }
    writer = access == Access::atomic ? kByAtomics : now.serial;
  }
}

void begin_schedule() {
  for (const auto& buffer : buffers) {
    std::fill(buffer->writer.begin(), buffer->writer.end(), 0);
    std::memcpy(buffer->data(), buffer->before.data(), buffer->before.size());
    if (buffer->wholly) poison(*buffer);
  }
}

void end_schedule() {
  for (const auto& buffer : buffers) check_result(*buffer);
  first_schedule = false;
}

void end_job(bool failed) {
  if (failed) {
    for (const auto& buffer : buffers) {
      std::memcpy(buffer->data(), buffer->before.data(), buffer->before.size());
    }
  }
  buffers.clear();
  first_schedule = true;
}

// ---- shared memory

alignas(128) char shared_memory[kMostSharedBytes];
Cell words[kMostSharedBytes / 4];

namespace {

struct Copy {
  char* shared;
  const char* global;
  int bytes, valid_bytes;
};

struct Array {
  const void* place;
  std::size_t begin, bytes;
};

Cell bytes_in_words[kMostSharedBytes];
std::vector<Array> arrays;
std::size_t dynamic_bytes = 0;
std::size_t used_bytes = 0;

struct Copies {
  std::uint32_t first_interval = 0;      // of the block that they are from
  std::deque<std::vector<Copy>> groups;  // the last one is still open
};
Copies copies[1024];  // of each thread

std::deque<std::vector<Copy>>& my_groups() {
  Copies& mine = copies[now.thread];
  if (mine.first_interval != now.first_interval) mine.groups.assign(1, {});
  mine.first_interval = now.first_interval;
  return mine.groups;
}

[[noreturn]] void race(const void* address, const char* does, int other, const char* did) {
  const auto offset = static_cast<const char*>(address) - shared_memory;
  std::string text = std::string(does) + " shared memory";
  for (const Array& array : arrays) {
    const std::size_t byte = static_cast<std::size_t>(offset) - array.begin;
    if (byte < array.bytes) text += " (byte " + std::to_string(byte) + " of an array)";
  }
  const std::string who = other >= 0            ? "thread " + std::to_string(other)
                          : other == kManyLanes ? "another lane"
                                                : "another warp";
  trap(text + " that " + who + " " + did + ", with no barrier between the two");
}

bool in_this_block(const Cell& cell) { return cell.write_interval >= now.first_interval; }

bool under_way(const Cell& cell) { return cell.copying && in_this_block(cell); }

// True if another thread did something in this interval that no barrier of the warp orders either.
bool unordered(std::uint32_t interval, std::uint32_t step, int thread, int warp) {
  if (interval != now.interval) return false;
  if (warp != now.warp) return true;
  return step == now.step && thread != now.thread;
}

void check_write(const Cell& cell, const void* address, bool atomic) {
  const char* const does = atomic ? "changes" : "writes";
  if (under_way(cell)) trap("writes shared memory that a copy is under way to");
  if (!(atomic && cell.by_atomics) &&
      unordered(cell.write_interval, cell.write_step, cell.writer, cell.writer / 32)) {
    race(address, does, cell.writer, "has written");
  }
  if (unordered(cell.read_interval, cell.read_step, cell.reader, cell.reader_warp)) {
    race(address, does, cell.reader_warp == kManyWarps ? kManyWarps : cell.reader, "has read");
  }
}

void note_write(Cell& cell, bool atomic) {
  cell.write_interval = now.interval;
  cell.write_step = now.step;
  cell.writer = static_cast<std::int16_t>(now.thread);
  cell.by_atomics = atomic;
  cell.copying = false;
}

void check_read(const Cell& cell, const void* address) {
  if (under_way(cell)) {
    trap("reads shared memory that a copy is still under way to: copy_wait comes first");
  }
  if (!in_this_block(cell)) trap("reads shared memory that nobody has written");
  if (unordered(cell.write_interval, cell.write_step, cell.writer, cell.writer / 32)) {
    race(address, "reads", cell.writer, "has written");
  }
}

void note_read(Cell& cell) {
  const auto warp = static_cast<std::int16_t>(now.warp);
  const auto thread = static_cast<std::int16_t>(now.thread);
  if (cell.read_interval != now.interval) {
    cell.reader_warp = warp;
    cell.reader = thread;
  } else if (cell.reader_warp != warp) {
    cell.reader_warp = kManyWarps;
  } else if (cell.read_step != now.step) {
    cell.reader = thread;
  } else if (cell.reader != thread) {
    cell.reader = kManyLanes;
  }
  cell.read_interval = now.interval;
  cell.read_step = now.step;
}

Cell& cell_of(const void* address) {
  const auto offset = static_cast<const char*>(address) - shared_memory;
  return offset % 4 == 0 ? words[offset / 4] : bytes_in_words[offset];
}

}  // namespace

void forget_intervals() {
  std::fill(std::begin(words), std::end(words), Cell{});
  std::fill(std::begin(bytes_in_words), std::end(bytes_in_words), Cell{});
  for (Copies& of_thread : copies) of_thread = {};
}

void begin_block(std::size_t shared_bytes) {
  std::memset(shared_memory, kNaN, std::max(used_bytes, shared_bytes));
  arrays.clear();
  dynamic_bytes = used_bytes = shared_bytes;
}

void* shared_array(const void* place, std::size_t bytes) {
  for (const Array& known : arrays) {
    if (known.place == place) return shared_memory + known.begin;
  }
  const std::size_t begin = (used_bytes + 15) / 16 * 16;
  if (begin + bytes > kMostSharedBytes) {
    trap("needs " + std::to_string(begin + bytes) + " bytes of shared memory, a block may have " +
         std::to_string(kMostSharedBytes));
  }
  std::memset(shared_memory + begin, kNaN, bytes);
  arrays.push_back({place, begin, bytes});
  used_bytes = begin + bytes;
  return shared_memory + begin;
}

void* dynamic_array(std::size_t* bytes) {
  *bytes = dynamic_bytes;
  return shared_memory;
}

void touch_shared_cells(const void* address, int bytes, Access access) {
  const char* const begin = static_cast<const char*>(address);
  for (int done = 0; done < bytes; done += 4) {
    Cell& cell = cell_of(begin + done);
    switch (access) {
      case Access::read:
        check_read(cell, begin + done);
        note_read(cell);
        break;
      case Access::atomic:
        if (!in_this_block(cell)) check_read(cell, begin + done);
        check_write(cell, begin + done, true);
        note_write(cell, true);
        break;
      case Access::write:
        check_write(cell, begin + done, false);
        note_write(cell, false);
        break;
      case Access::rewrite:  // several threads may write the same value
        if (under_way(cell)) trap("writes shared memory that a copy is under way to");
        note_write(cell, false);
        break;
    }
  }
}

void check_copy(int bytes, int valid_bytes) {
  if (valid_bytes < 0 || valid_bytes > bytes) {
    trap("copies " + std::to_string(valid_bytes) + " valid bytes of " + std::to_string(bytes));
  }
}

void copy_async(void* shared, const void* global, int bytes, int valid_bytes) {
  char* const to = static_cast<char*>(shared);
  for (int done = 0; done < bytes; done += 4) {
    check_write(cell_of(to + done), to + done, false);
    note_write(cell_of(to + done), false);
    cell_of(to + done).copying = true;
  }
  std::memset(to, kNaN, static_cast<std::size_t>(bytes));
  my_groups().back().push_back({to, static_cast<const char*>(global), bytes, valid_bytes});
}

void copy_commit() { my_groups().emplace_back(); }

void copy_wait(int latest) {
  auto& mine = my_groups();
  while (static_cast<int>(mine.size()) - 1 > latest) {
    for (const Copy& copy : mine.front()) {
      for (int done = 0; done < copy.bytes; done += 4) {
        note_write(cell_of(copy.shared + done), false);
      }
      const auto valid = static_cast<std::size_t>(copy.valid_bytes);
      if (valid > 0) std::memcpy(copy.shared, copy.global, valid);
      std::memset(copy.shared + valid, 0, static_cast<std::size_t>(copy.bytes) - valid);
    }
    mine.pop_front();
  }
}

}  // namespace ecgfast::emulator
