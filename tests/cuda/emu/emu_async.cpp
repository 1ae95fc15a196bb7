// cp.async: copies to shared memory that a thread issues and waits for, done at issue or at the
// wait that covers them.
#include "block.h"

namespace emu {

namespace {

void perform(const AsyncCopy& copy) {
  copy_bytes(copy.to, copy.from, copy.source_bytes);
  fill_bytes(static_cast<unsigned char*>(copy.to) + copy.source_bytes, 0,
             copy.bytes - copy.source_bytes);
}

}  // namespace

void async_copy(void* shared, const void* global, std::size_t bytes, std::size_t source_bytes) {
  Fiber& fiber = running();
  const auto to = reinterpret_cast<std::uintptr_t>(shared);
  const auto from = reinterpret_cast<std::uintptr_t>(global);
  if (bytes != 4 && bytes != 8 && bytes != 16) fault("cp.async: size other than 4, 8 or 16");
  if (source_bytes > bytes) fault("cp.async: more bytes to read than to write");
  if (to % bytes != 0 || from % bytes != 0) fault("cp.async: misaligned address");
  const auto window = reinterpret_cast<std::uintptr_t>(shared_window());
  if (to < window || to + bytes > window + kSharedWindowBytes) {
    fault("cp.async: the target is not shared memory");
  }
  if (source_bytes > 0 && !in_device_memory(global, source_bytes)) {
    fault("cp.async: the source is not device memory");
  }
  const AsyncCopy copy = {shared, global, static_cast<std::uint32_t>(bytes),
                          static_cast<std::uint32_t>(source_bytes), fiber.committed_groups};
  if (!options().copy_at_wait) {
    perform(copy);
    return;
  }
  touch_source(global, source_bytes);
  touch_target(shared, bytes);
  if (fiber.num_copies == kMaxAsyncCopies) fault("cp.async: more copies under way than emulated");
  fiber.copies[fiber.num_copies++] = copy;
}

void async_commit() { ++running().committed_groups; }

void async_wait(int newest) {
  Fiber& fiber = running();
  unsigned kept = 0;
  for (unsigned i = 0; i < fiber.num_copies; ++i) {
    const AsyncCopy copy = fiber.copies[i];
    // Group g is among the newest that may be unfinished, or not committed at all.
    if (copy.group + static_cast<std::uint32_t>(newest) >= fiber.committed_groups) {
      fiber.copies[kept++] = copy;
    } else {
      perform(copy);
    }
  }
  fiber.num_copies = kept;
}

}  // namespace emu
