// An emulator of one block of a CUDA kernel, so that kernels are tested where there is no GPU.
//
// The threads of a block are fibers of one system thread; they run until they meet (shuffle, vote,
// barrier) or end. Blocks run one after the other. A job runs once under each of several schedules:
// one warp as far ahead as it can get, each in turn; the same with all orders reversed; at random.
//
// It proves     indexing: every access lies in the row, record, view or shared array that its
//               pointer was made for, and vectors are aligned;
//               barriers: reached by all threads at one line, shuffles and votes by all 32 lanes;
//               two threads that touch the same shared memory, one writing, without a barrier
//               between them are found whatever the schedule was; the result is the same, bit for
//               bit, under all schedules and orders of blocks;
//               unwritten memory: shared memory and outputs start as NaN, reading them before
//               they are written is an error, an asynchronous copy lands when waited for and not
//               before, and each element of an output is written by the end of the job.
//               An output that no kernel asks for is not seen here; the comparison with the
//               reference shows it, since the tests' fresh memory is NaN.
// It does not   prove anything of memory ordering between blocks or through global memory (that
//               shows only if it makes schedules differ), of tensor cores, of half types, of the
//               rounding of approximate functions, or of speed.
// It is strict  where the hardware forgives: a thread that ended is missed at a barrier, a shuffle
//               orders no memory, and what is only read to be dropped must be written too.
//
// Every error is a std::runtime_error that names kernel, block and thread; memory is put back.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

#include "core/view.h"

namespace ecgfast::emulator {

constexpr int kNaN = 0xff;  // bytes that make a NaN of every float type, and -1
constexpr std::size_t kMostSharedBytes = 227 * 1024;  // of one block, on sm_90

// Runs a job, which launches kernels, under each schedule.
void emulate(const std::function<void()>& job);
void use_schedules(int count, std::uint64_t seed);  // the third and later ones are random

// Runs `thread` as every thread of every block.
void launch(const std::string& kernel, Grid grid, int threads, std::size_t shared_bytes,
            const std::function<void()>& thread);

// The thread that runs now. An interval lies between two barriers of a block, a step between two
// of a warp; they are numbered together.
struct Now {
  int thread, lane, warp;
  Grid block, blocks;
  std::uint32_t interval, step;
  std::uint32_t first_interval;        // of this block
  std::uint32_t serial, first_serial;  // of this block, and of the first one of this launch
};
extern Now now;

[[noreturn]] void trap(const std::string& what);

// Where in the source threads meet.
struct Site {
  const char* what;
  const char* file;
  int line;
};

// Waits for all 32 lanes; gives the value that each of them brought, valid until the next meeting.
const std::uint64_t* meet_warp(const Site& site, std::uint64_t value);
void sync_warp(const Site& site);
void sync_block(const Site& site);

enum class Access { read, write, rewrite, atomic };  // a rewrite leaves the bytes as they are

// A view that kernels write to, with what was written.
struct Buffer;
Buffer* written(const View& view, bool wholly);
void touch_global(Buffer* buffer, const void* address, int bytes, Access access);

void* shared_array(const void* place, std::size_t bytes);  // one for each place in the source
void* dynamic_array(std::size_t* bytes);                   // what launch was told

// What happened to a word of 4 bytes of shared memory, or to a byte of it that is none's first.
// Interval and step are those of Now.
struct Cell {
  std::uint32_t write_interval, write_step, read_interval, read_step;
  std::int16_t writer, reader, reader_warp;
  bool by_atomics;
  bool copying;  // a copy has been started and has not landed
};
constexpr int kManyLanes = -2;  // of one warp
constexpr int kManyWarps = -3;
extern char shared_memory[kMostSharedBytes];
extern Cell words[kMostSharedBytes / 4];

void touch_shared_cells(const void* address, int bytes, Access access);

// True if a reading would change nothing: it follows one by the same readers, and no writing.
inline bool read_before(const Cell& cell) {
  const bool settled = cell.write_interval >= now.first_interval &&
                       cell.write_interval != now.interval && !cell.copying;
  return settled && cell.read_interval == now.interval &&
         (cell.reader_warp == kManyWarps ||
          (cell.reader_warp == now.warp && cell.read_step == now.step &&
           (cell.reader == now.thread || cell.reader == kManyLanes)));
}

// Most of all that kernels do is reading shared memory that others of them have read too.
inline void touch_shared(const void* address, int bytes, Access access) {
  const auto offset = static_cast<const char*>(address) - shared_memory;
  bool known = access == Access::read && bytes >= 4;
  for (int done = 0; known && done < bytes; done += 4) {
    known = read_before(words[(offset + done) / 4]);
  }
  if (!known) touch_shared_cells(address, bytes, access);
}

void copy_async(void* shared, const void* global, int bytes, int valid_bytes);
void copy_commit();
void copy_wait(int latest);

// What the wrappers ask before they touch anything.
void check_dtype(const View& view, bool floating, std::size_t bytes);
void check_copy(int bytes, int valid_bytes);
std::int64_t extent(const View& view, int first_axis);  // elements from the first to the last one
std::string kernel_in(const std::string& signature);    // of launch<kernel>

// Between the scheduler and the memory.
void forget_intervals();  // their numbers begin anew
void begin_block(std::size_t shared_bytes);
void begin_schedule();  // outputs are NaN again, all else is as it was
void end_schedule();    // all is written, and as under the first schedule
void end_job(bool failed);
const std::string& kernel_name();

}  // namespace ecgfast::emulator
