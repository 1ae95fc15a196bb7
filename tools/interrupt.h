// SIGINT and SIGTERM: while a model loads they end the process at once, afterwards they are only
// noted, so that the work in hand can stop between two batches and leave no half-written file.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <csignal>

#include "terse/error.h"

namespace terse_tools {

namespace detail {

inline volatile std::sig_atomic_t noted_signal = 0;
inline int wake_pipe[2] = {-1, -1};  // readable once a signal has been noted

extern "C" inline void exit_at_once(int signal) { ::_exit(128 + signal); }

extern "C" inline void note_signal(int signal) {
  noted_signal = signal;
  [[maybe_unused]] const auto written = ::write(wake_pipe[1], "", 1);
}

inline void handle_signals(void (*handler)(int), int flags) {
  struct sigaction action = {};
  action.sa_handler = handler;
  action.sa_flags = flags;
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
}

}  // namespace detail

// SIGINT and SIGTERM end the process with exit code 130 or 143; writing to a closed pipe becomes an
// error of write().
inline void exit_on_signals() {
  std::signal(SIGPIPE, SIG_IGN);
  detail::handle_signals(detail::exit_at_once, 0);
}

// From now on the first of these signals is only noted and interrupts system calls; a second one
// ends the process. Throws Error(io) if the system has no descriptors left.
inline void note_signals() {
  if (detail::wake_pipe[0] < 0) {
    terse::check(::pipe2(detail::wake_pipe, O_CLOEXEC | O_NONBLOCK) == 0, terse::ErrorClass::io,
                 "could not make a pipe");
  }
  detail::handle_signals(detail::note_signal, static_cast<int>(SA_RESETHAND));
}

// The signal noted, or 0.
inline int noted_signal() { return detail::noted_signal; }

// A descriptor to poll() beside others: readable once a signal has been noted. -1, which poll()
// skips, before note_signals().
inline int wake_descriptor() { return detail::wake_pipe[0]; }

// Throws Error(cancelled) if a signal has been noted.
inline void check_interrupted() {
  terse::check(noted_signal() == 0, terse::ErrorClass::cancelled, "interrupted by signal ",
               noted_signal());
}

}  // namespace terse_tools
