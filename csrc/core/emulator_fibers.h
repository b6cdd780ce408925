// Fibers: functions with a stack of their own, which run until they pause.
#pragma once

namespace ecgfast::emulator {

constexpr int kMostFibers = 1024;

void start_fiber(int index, void (*body)());  // runs at the next resume; body must not throw
void resume_fiber(int index);                 // returns when the fiber pauses or ends
void pause_fiber(int index);                  // called on the fiber itself
void guard_stack(int index);
bool fiber_fits(int index);  // false if it has overrun its stack since it was guarded

}  // namespace ecgfast::emulator
