// Turns SIGINT and SIGTERM into a call of a function, so that a command can cancel its call and leave the terminal as
// it was.
//
//   Interrupt interrupt;                       // first thing in main: threads made later inherit the blocked signals
//   ...
//   InterruptScope scope(&interrupt, [&] { stream->Cancel(); });
//
// The first signal runs the function; without one, or at the second signal, the process exits with 130.
#ifndef SWITCHYARD_CLIENT_COMMANDS_INTERRUPT_H_
#define SWITCHYARD_CLIENT_COMMANDS_INTERRUPT_H_

#include <atomic>
#include <functional>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace switchyard {

class Interrupt {
 public:
  // Blocks the signals in this thread and waits for them in one of its own.
  Interrupt();
  ~Interrupt();
  Interrupt(const Interrupt&) = delete;
  Interrupt& operator=(const Interrupt&) = delete;

  // What the next signal does; it runs on the waiting thread. Empty: exit. After the return the function that was set
  // before is not running and will not run.
  void Set(std::function<void()> action);

  // Did a signal come?
  bool happened() const { return happened_.load(); }

 private:
  void Wait();

  absl::Mutex mutex_;
  std::function<void()> action_ ABSL_GUARDED_BY(mutex_);
  std::atomic<bool> happened_{false};  // flag
  std::atomic<bool> ending_{false};    // flag
  std::thread thread_;
};

// Sets an action for its own lifetime. A null `interrupt` does nothing.
class InterruptScope {
 public:
  InterruptScope(Interrupt* interrupt, std::function<void()> action) : interrupt_(interrupt) {
    if (interrupt_ != nullptr) interrupt_->Set(std::move(action));
  }
  ~InterruptScope() {
    if (interrupt_ != nullptr) interrupt_->Set(nullptr);
  }
  InterruptScope(const InterruptScope&) = delete;
  InterruptScope& operator=(const InterruptScope&) = delete;

 private:
  Interrupt* const interrupt_;
};

}  // namespace switchyard

#endif  // SWITCHYARD_CLIENT_COMMANDS_INTERRUPT_H_
