// Streams, events and graphs of the stand-in runtime. A stream's work runs at once or, with
// deferred_streams, when something waits for it, in which case work that nobody ordered is seen in
// the wrong order.
#include <algorithm>
#include <set>
#include <thread>
#include <utility>

#include "fake_device.h"

// A point in a stream's work.
struct Mark {
  cudaStream_t stream = nullptr;
  bool reached = false;
};

struct CUgraph_st {
  std::vector<emu::Operation> operations;
};
struct CUgraphExec_st {
  std::shared_ptr<const std::vector<emu::Operation>> operations;
};
struct CUstream_st {
  int device = 0;
  bool blocking = true;  // waits for the legacy default stream, and it for this one
  std::deque<emu::Operation> queue;
  std::unique_ptr<CUgraph_st> captured;  // while capturing
  bool capture_lost = false;
  cudaStreamCaptureMode capture_mode = cudaStreamCaptureModeGlobal;
  std::thread::id capturing_thread = {};
};
struct CUevent_st {
  std::shared_ptr<Mark> mark;
};

namespace emu {

namespace {

std::set<cudaStream_t>& streams() {
  static std::set<cudaStream_t> live;
  return live;
}

// The legacy default stream of a device.
CUstream_st& default_stream(int device) {
  static std::deque<CUstream_st> all;
  while (static_cast<int>(all.size()) <= device) {
    all.emplace_back();
    all.back().device = static_cast<int>(all.size()) - 1;
  }
  return all[static_cast<std::size_t>(device)];
}

// The stream that a handle names, or null.
CUstream_st* resolve(cudaStream_t stream) {
  if (stream == nullptr) return &default_stream(current_device());
  return streams().contains(stream) ? stream : nullptr;
}

void run_first(CUstream_st& stream) {
  const Operation operation = std::move(stream.queue.front());
  stream.queue.pop_front();
  operation();
}

void finish(CUstream_st& stream) {
  while (!stream.queue.empty()) run_first(stream);
}

void finish_mark(const std::shared_ptr<Mark>& mark) {
  while (mark != nullptr && !mark->reached) {
    CUstream_st* const stream = resolve(mark->stream);
    if (stream == nullptr || stream->queue.empty()) return;
    run_first(*stream);
  }
}

// A call on a live stream; `synchronises` if a capture may forbid it.
template <class Work>
cudaError_t on_stream(cudaStream_t handle, bool synchronises, const Work& work) {
  const Lock lock(runtime_mutex());
  if (const cudaError_t error = enter(); error != cudaSuccess) return error;
  CUstream_st* const stream = resolve(handle);
  if (stream == nullptr) return note(cudaErrorInvalidResourceHandle);
  if (synchronises && breaks_capture()) return note(cudaErrorStreamCaptureUnsupported);
  return work(*stream);
}

// Releases what a handle names, of a lost device too.
template <class Handle>
cudaError_t destroy(Handle handle) {
  const Lock lock(runtime_mutex());
  delete handle;
  return enter();
}

}  // namespace

cudaError_t enqueue(cudaStream_t handle, std::function<void()> operation) {
  CUstream_st* const stream = resolve(handle);
  if (stream == nullptr) return note(cudaErrorInvalidResourceHandle);
  if (stream->captured != nullptr) {
    stream->captured->operations.push_back(std::move(operation));
    return cudaSuccess;
  }
  stream->queue.push_back(std::move(operation));
  if (!options().deferred_streams) finish(*stream);
  return cudaSuccess;
}

int device_of(cudaStream_t handle) {
  const CUstream_st* const stream = resolve(handle);
  return stream != nullptr ? stream->device : -1;
}

void finish_device(int device) {
  // The last made first, so that an order between streams is not had by chance.
  for (auto stream = streams().rbegin(); stream != streams().rend(); ++stream) {
    if (device < 0 || (*stream)->device == device) finish(**stream);
  }
  for (int i = 0; i < options().device_count; ++i) {
    if (device < 0 || i == device) finish(default_stream(i));
  }
}

void finish_blocking(int device) {
  for (const cudaStream_t stream : streams()) {
    if (stream->blocking && stream->device == device) finish(*stream);
  }
  finish(default_stream(device));
}

void drop_streams(int device) {
  for (const cudaStream_t stream : streams()) {
    if (stream->device == device) stream->queue.clear();
  }
  default_stream(device).queue.clear();
}

bool breaks_capture() {
  bool any = false;
  for (const cudaStream_t stream : streams()) {
    if (stream->captured == nullptr || stream->capture_mode == cudaStreamCaptureModeRelaxed)
      continue;
    if (stream->capture_mode == cudaStreamCaptureModeThreadLocal &&
        stream->capturing_thread != std::this_thread::get_id()) {
      continue;
    }
    any = stream->capture_lost = true;
  }
  return any;
}

}  // namespace emu

using namespace emu;

// ---- Streams

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  return on_runtime([&] {
    *stream = new CUstream_st;
    (*stream)->device = current_device();
    (*stream)->blocking = (flags & cudaStreamNonBlocking) == 0;
    streams().insert(*stream);
    return cudaSuccess;
  });
}
cudaError_t cudaStreamCreate(cudaStream_t* stream) {
  return cudaStreamCreateWithFlags(stream, cudaStreamDefault);
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  const Lock lock(runtime_mutex());
  const cudaError_t error = enter();
  if (!streams().contains(stream)) return note(cudaErrorInvalidResourceHandle);
  // Its work goes on to its end; that of a lost device does not.
  if (error == cudaSuccess) finish(*stream);
  streams().erase(stream);
  delete stream;
  return error;
}

cudaError_t cudaStreamSynchronize(cudaStream_t handle) {
  return on_stream(handle, true, [&](CUstream_st& stream) {
    ++counted().synchronizations;
    if (handle == nullptr) finish_blocking(stream.device);
    finish(stream);
    return cudaSuccess;
  });
}

cudaError_t cudaStreamQuery(cudaStream_t handle) {
  return on_stream(handle, true, [](CUstream_st& stream) {
    if (stream.queue.empty()) return cudaSuccess;
    run_first(stream);
    return cudaErrorNotReady;
  });
}

cudaError_t cudaLaunchHostFunc(cudaStream_t handle, cudaHostFn_t function, void* argument) {
  return on_runtime([&] { return enqueue(handle, [=] { function(argument); }); });
}

// ---- Events

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  return on_runtime([&] {
    *event = new CUevent_st;
    return cudaSuccess;
  });
}
cudaError_t cudaEventCreate(cudaEvent_t* event) {
  return cudaEventCreateWithFlags(event, cudaEventDefault);
}
cudaError_t cudaEventDestroy(cudaEvent_t event) { return destroy(event); }

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t handle) {
  return on_stream(handle, false, [&](CUstream_st& stream) {
    if (stream.captured != nullptr) return note(cudaErrorStreamCaptureUnsupported);
    event->mark = std::make_shared<Mark>();
    event->mark->stream = handle;
    return enqueue(handle, [mark = event->mark] { mark->reached = true; });
  });
}

cudaError_t cudaStreamWaitEvent(cudaStream_t handle, cudaEvent_t event, unsigned) {
  return on_stream(handle, false, [&](CUstream_st& stream) {
    if (stream.captured != nullptr) return note(cudaErrorStreamCaptureUnsupported);
    return enqueue(handle, [mark = event->mark] { finish_mark(mark); });
  });
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  return on_runtime([&] {
    if (breaks_capture()) return note(cudaErrorStreamCaptureUnsupported);
    ++counted().synchronizations;
    finish_mark(event->mark);
    return cudaSuccess;
  });
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
  return on_runtime([&] {
    if (event->mark == nullptr || event->mark->reached) return cudaSuccess;
    if (CUstream_st* const stream = resolve(event->mark->stream);
        stream && !stream->queue.empty()) {
      run_first(*stream);
    }
    return event->mark->reached ? cudaSuccess : cudaErrorNotReady;
  });
}

// Emulated work has no duration.
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end) {
  return on_runtime([&] {
    if (start->mark == nullptr || end->mark == nullptr) return note(cudaErrorInvalidResourceHandle);
    if (!start->mark->reached || !end->mark->reached) return cudaErrorNotReady;
    *milliseconds = 0;
    return cudaSuccess;
  });
}

// ---- Graphs

cudaError_t cudaStreamBeginCapture(cudaStream_t handle, cudaStreamCaptureMode mode) {
  return on_stream(handle, false, [&](CUstream_st& stream) {
    // The legacy default stream cannot be captured.
    if (handle == nullptr) return note(cudaErrorStreamCaptureUnsupported);
    if (stream.captured != nullptr) return note(cudaErrorInvalidValue);
    stream.captured = std::make_unique<CUgraph_st>();
    stream.capture_lost = false;
    stream.capture_mode = mode;
    stream.capturing_thread = std::this_thread::get_id();
    return cudaSuccess;
  });
}

cudaError_t cudaStreamEndCapture(cudaStream_t handle, cudaGraph_t* graph) {
  return on_stream(handle, false, [&](CUstream_st& stream) {
    *graph = nullptr;
    if (stream.captured == nullptr) return note(cudaErrorInvalidValue);
    const auto captured = std::move(stream.captured);
    if (stream.capture_lost) return note(cudaErrorStreamCaptureInvalidated);
    *graph = new CUgraph_st(std::move(*captured));
    return cudaSuccess;
  });
}

cudaError_t cudaStreamIsCapturing(cudaStream_t handle, cudaStreamCaptureStatus* status) {
  return on_stream(handle, false, [&](CUstream_st& stream) {
    *status = stream.captured == nullptr ? cudaStreamCaptureStatusNone
              : stream.capture_lost      ? cudaStreamCaptureStatusInvalidated
                                         : cudaStreamCaptureStatusActive;
    return cudaSuccess;
  });
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
  return on_runtime([&] {
    *exec = new CUgraphExec_st{std::make_shared<const std::vector<Operation>>(graph->operations)};
    return cudaSuccess;
  });
}

cudaError_t cudaGraphUpload(cudaGraphExec_t, cudaStream_t) {
  return on_runtime([] { return cudaSuccess; });
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t handle) {
  return on_stream(handle, false, [&](CUstream_st&) {
    ++counted().graph_launches;
    return enqueue(handle, [operations = exec->operations] {
      for (const Operation& operation : *operations) operation();
    });
  });
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) { return destroy(exec); }
cudaError_t cudaGraphDestroy(cudaGraph_t graph) { return destroy(graph); }
