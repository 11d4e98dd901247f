#include "client/commands/interrupt.h"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

namespace switchyard {
namespace {

constexpr int kExitInterrupted = 130;

sigset_t StopSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  return signals;
}

}  // namespace

Interrupt::Interrupt() {
  const sigset_t signals = StopSignals();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  thread_ = std::thread([this] { Wait(); });
}

Interrupt::~Interrupt() {
  ending_.store(true);
  pthread_kill(thread_.native_handle(), SIGINT);
  thread_.join();
}

void Interrupt::Set(std::function<void()> action) {
  const absl::MutexLock lock(&mutex_);
  action_ = std::move(action);
}

void Interrupt::Wait() {
  const sigset_t signals = StopSignals();
  for (;;) {
    int signal = 0;
    sigwait(&signals, &signal);
    if (ending_.load()) return;
    const absl::MutexLock lock(&mutex_);
    if (!action_ || happened_.exchange(true)) _exit(kExitInterrupted);
    action_();
  }
}

}  // namespace switchyard
