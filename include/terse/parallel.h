// Threads: how many this process may use, and loops split over them. The only header that knows
// about threads; OpenMP where the compiler has it switched on, one thread where it has not.
//
// What every loop here keeps: which worker runs an index may differ from run to run, what is
// computed for it may not. A loop inside another one, ours or the caller's OpenMP region, runs on
// the thread it is on. Exceptions leave a loop as they leave a serial one: that of the lowest
// index.
//
// GCC's libgomp keeps idle workers spinning for a moment (GOMP_SPINCOUNT, OMP_WAIT_POLICY) and
// cannot run a loop in a child forked after the parent ran one: fork first, or use one thread.
#pragma once

#if defined(__linux__)
#include <sched.h>
#endif
#if defined(_OPENMP)
#include <omp.h>
#endif

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <fstream>
#include <mutex>
#include <string>
#include <thread>

#include "terse/error.h"

namespace terse {

inline constexpr int kMaxThreads = 1024;

namespace detail {

// Processors in the affinity mask of this thread; 0 if the system does not say.
inline int affinity_threads() {
#if defined(__linux__)
  // The kernel refuses a mask shorter than its own, whose length it does not tell.
  for (int processors = CPU_SETSIZE; processors <= 64 * CPU_SETSIZE; processors *= 2) {
    cpu_set_t* mask = CPU_ALLOC(static_cast<std::size_t>(processors));
    if (mask == nullptr) return 0;
    const std::size_t bytes = CPU_ALLOC_SIZE(static_cast<std::size_t>(processors));
    const bool read = ::sched_getaffinity(0, bytes, mask) == 0;
    const int count = read ? CPU_COUNT_S(bytes, mask) : 0;
    CPU_FREE(mask);
    if (read) return count;
  }
#endif
  return 0;
}

// The processors' worth of time that `quota` microseconds in every `period` are, rounded down but
// at least 1: a worker without a processor of its own only holds up the others.
inline int quota_threads(std::int64_t quota, std::int64_t period) {
  if (quota <= 0 || period <= 0) return kMaxThreads;
  return static_cast<int>(std::clamp<std::int64_t>(quota / period, 1, kMaxThreads));
}

// The quota a control group sets itself, from its folder: cpu.max in version 2, two files in
// version 1. kMaxThreads if it sets none.
inline int cgroup_folder_threads(const std::string& folder) {
  std::int64_t quota = 0;
  std::int64_t period = 0;
  if (std::ifstream file(folder + "/cpu.max"); file >> quota >> period) {
    return quota_threads(quota, period);
  }
  std::ifstream quota_file(folder + "/cpu.cfs_quota_us");
  std::ifstream period_file(folder + "/cpu.cfs_period_us");
  if (quota_file >> quota && period_file >> period) return quota_threads(quota, period);
  return kMaxThreads;
}

// The smallest quota of a control group and all those above it. Source: Linux
// Documentation/admin-guide/cgroup-v2.rst ("cpu.max") and scheduler/sched-bwc.rst.
inline int cgroup_threads(const std::string& mount, std::string group) {
  int threads = kMaxThreads;
  while (true) {
    threads = std::min(threads, cgroup_folder_threads(mount + group));
    const std::size_t slash = group.rfind('/');
    if (slash == std::string::npos) return threads;
    group.resize(slash);
  }
}

// The quota of this process's control groups. A line of the table reads "id:controllers:path";
// version 2 is the line without controllers.
inline int cgroup_quota_threads(const std::string& table = "/proc/self/cgroup",
                                const std::string& mount = "/sys/fs/cgroup") {
  int threads = kMaxThreads;
  std::ifstream file(table);
  for (std::string line; std::getline(file, line);) {
    const std::size_t first = line.find(':');
    const std::size_t second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const std::string group = line.substr(second + 1);
    if (controllers.empty()) {
      threads = std::min(threads, cgroup_threads(mount, group));
    } else if (("," + controllers + ",").find(",cpu,") != std::string::npos) {
      threads = std::min(threads, cgroup_threads(mount + "/" + controllers, group));
    }
  }
  return threads;
}

}  // namespace detail

// How many threads this process may use: the smallest of its affinity mask and the quotas of its
// control groups, from 1 to 1024. Environment variables do not count.
inline int available_threads() {
  int threads = detail::affinity_threads();
  if (threads == 0) threads = static_cast<int>(std::thread::hardware_concurrency());
  return std::clamp(std::min(threads, detail::cgroup_quota_threads()), 1, kMaxThreads);
}

// A caller's choice of threads, 0 meaning all available. Throws Error(range) outside 0 to 1024.
inline int thread_count(int requested) {
  check(requested >= 0 && requested <= kMaxThreads, ErrorClass::range, "threads: ", requested,
        ", expected 0 (all available) to ", kMaxThreads);
  return requested == 0 ? available_threads() : requested;
}

// Two program parts, one compiled with OpenMP and one without, may meet in one program: the
// namespaces keep their loops apart, and a caller compiled in both ways is right with either.
#if defined(_OPENMP)
inline namespace with_openmp {
#else
inline namespace without_openmp {
#endif

// Keeps the exception of the lowest index of a loop.
class FirstException {
 public:
  // To be called from a catch block.
  void keep(std::int64_t index) noexcept {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (exception_ == nullptr || index < index_) {
      exception_ = std::current_exception();
      index_ = index;
    }
    failed_.store(true, std::memory_order_relaxed);
  }
  bool failed() const { return failed_.load(std::memory_order_relaxed); }
  void rethrow() const {
    if (exception_ != nullptr) std::rethrow_exception(exception_);
  }

 private:
  std::mutex mutex_;
  std::exception_ptr exception_;
  std::int64_t index_ = 0;
  std::atomic<bool> failed_{false};
};

// Calls run(worker) once for each worker in [0, workers), on as many threads as the system grants;
// with fewer threads than workers a thread runs several in turn. run must not throw, and must not
// wait for another worker.
template <class F>
void run_workers(int workers, const F& run) noexcept {
#if defined(_OPENMP)
  if (workers > 1 && omp_in_parallel() == 0) {
#pragma omp parallel num_threads(workers)
    for (int worker = omp_get_thread_num(); worker < workers; worker += omp_get_num_threads()) {
      run(worker);
    }
    return;
  }
#endif
  for (int worker = 0; worker < workers; ++worker) run(worker);
}

// Splits [0, count) into at most `threads` contiguous ranges whose lengths differ by at most one,
// and calls f(begin, end, worker) for each: worker is the number of the range, below threads. The
// split depends on threads and count alone. Rethrows the exception of the lowest range.
template <class F>
void parallel_ranges(int threads, std::int64_t count, F&& f) {
  if (count <= 0) return;
  const auto workers = static_cast<int>(std::clamp<std::int64_t>(threads, 1, count));
  const std::int64_t length = count / workers;
  const std::int64_t longer = count % workers;  // the first ranges take one index more
  FirstException exception;
  run_workers(workers, [&](int worker) {
    const std::int64_t begin = worker * length + std::min<std::int64_t>(worker, longer);
    const std::int64_t end = begin + length + (worker < longer ? 1 : 0);
    try {
      f(begin, end, worker);
    } catch (...) {
      exception.keep(worker);
    }
  });
  exception.rethrow();
}

// Calls f(index) for every index in [0, count), each worker a contiguous range in rising order.
// Rethrows the exception of the lowest index that threw; later indices of its range are skipped.
template <class F>
void parallel_for(int threads, std::int64_t count, F&& f) {
  parallel_ranges(threads, count, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t index = begin; index < end; ++index) f(index);
  });
}

// Calls f(index, worker) for every index in [0, count), worker below threads: whoever is free takes
// the next index. For items of unequal cost, whose results must not depend on the worker. After an
// exception no further index is started; rethrows that of the lowest index that threw.
template <class F>
void parallel_dynamic(int threads, std::int64_t count, F&& f) {
  if (count <= 0) return;
  const auto workers = static_cast<int>(std::clamp<std::int64_t>(threads, 1, count));
  std::atomic<std::int64_t> next{0};
  FirstException exception;
  run_workers(workers, [&](int worker) {
    while (!exception.failed()) {
      const std::int64_t index = next.fetch_add(1, std::memory_order_relaxed);
      if (index >= count) return;
      try {
        f(index, worker);
      } catch (...) {
        exception.keep(index);
      }
    }
  });
  exception.rethrow();
}

}  // namespace with_openmp or without_openmp

}  // namespace terse
