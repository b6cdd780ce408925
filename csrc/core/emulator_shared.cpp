// Shared memory in the emulator: who touched what since which barrier; see emulator.h.
#include <algorithm>
#include <cstring>
#include <deque>
#include <iterator>
#include <vector>

#include "core/emulator.h"

namespace ecgfast::emulator {

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
