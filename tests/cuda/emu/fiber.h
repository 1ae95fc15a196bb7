// A fiber: a stack of its own and a switch to it and back, announced to the sanitizers. Built with
// EMU_ASAN or EMU_TSAN beside those sanitizers; with EMU_UCONTEXT, or on a processor other than
// x86-64, switches go through the C library, several times slower.
#pragma once

#include <cstddef>
#include <cstdint>

#if !defined(__x86_64__) && !defined(EMU_UCONTEXT)
#define EMU_UCONTEXT
#endif

#ifdef EMU_UCONTEXT
#include <ucontext.h>
#endif

#ifdef EMU_ASAN
extern "C" {
void __sanitizer_start_switch_fiber(void** fake_stack_save, const void* bottom, std::size_t size);
void __sanitizer_finish_switch_fiber(void* fake_stack, const void** bottom_old,
                                     std::size_t* size_old);
void __asan_poison_memory_region(const volatile void* address, std::size_t size);
void __asan_unpoison_memory_region(const volatile void* address, std::size_t size);
}
#endif
#ifdef EMU_TSAN
extern "C" {
void* __tsan_get_current_fiber();
void* __tsan_create_fiber(unsigned flags);
void __tsan_destroy_fiber(void* fiber);
void __tsan_switch_to_fiber(void* fiber, unsigned flags);
void __tsan_acquire(void* address);
void __tsan_release(void* address);
}
#endif

#ifndef EMU_UCONTEXT
// Saves the callee-saved registers on the running stack and its pointer in *from, and goes on where
// `to` was left.
extern "C" void emu_switch_stack(void** from, void* to);
#endif

namespace emu {

// One side of a switch.
struct Side {
#ifdef EMU_UCONTEXT
  ucontext_t context;
#else
  void* stack_pointer = nullptr;
#endif
  const void* stack = nullptr;  // lowest address, and length
  std::size_t stack_bytes = 0;
  void* fake_stack = nullptr;  // of ASan
  void* tsan = nullptr;

  // Makes the next switch to this side call entry on the stack given; entry never returns.
  void prepare(void* lowest, std::size_t bytes, void (*entry)()) {
    stack = lowest;
    stack_bytes = bytes;
    fake_stack = nullptr;
#ifdef EMU_ASAN
    __asan_unpoison_memory_region(lowest, bytes);  // what its last owner left behind
#endif
#ifdef EMU_UCONTEXT
    getcontext(&context);
    context.uc_stack.ss_sp = lowest;
    context.uc_stack.ss_size = bytes;
    context.uc_link = nullptr;
    makecontext(&context, entry, 0);
#else
    // As emu_switch_stack leaves it: six registers, the address to return to; above that a return
    // address for entry itself, so that its frame is aligned as after a call.
    auto** const top = reinterpret_cast<void**>(static_cast<unsigned char*>(lowest) + bytes);
    for (int i = 1; i <= 8; ++i) top[-i] = nullptr;
    top[-2] = reinterpret_cast<void*>(entry);
    stack_pointer = top - 8;
#endif
  }
};

// Leaves `from` and goes on in `to`; returns when something switches back. `last` if nothing will.
inline void switch_side(Side& from, Side& to, [[maybe_unused]] bool last = false) {
#ifdef EMU_ASAN
  __sanitizer_start_switch_fiber(last ? nullptr : &from.fake_stack, to.stack, to.stack_bytes);
#endif
#ifdef EMU_TSAN
  __tsan_switch_to_fiber(to.tsan, 1);  // 1: the switch orders nothing
#endif
#ifdef EMU_UCONTEXT
  swapcontext(&from.context, &to.context);
#else
  emu_switch_stack(&from.stack_pointer, to.stack_pointer);
#endif
#ifdef EMU_ASAN
  __sanitizer_finish_switch_fiber(from.fake_stack, nullptr, nullptr);
#endif
}

// First thing on a new stack; learns the stack it was switched to from.
inline void arrive_first([[maybe_unused]] Side& from) {
#ifdef EMU_ASAN
  __sanitizer_finish_switch_fiber(nullptr, &from.stack, &from.stack_bytes);
#endif
}

}  // namespace emu
