// mov, cvta, ld, st, atom, red and fences. The only file of the interpreter that touches a kernel's
// memory, and so the only one that ThreadSanitizer instruments.
// Source: PTX ISA, sections 9.7.9 (data movement) and 9.7.13 (synchronisation).
#include "memory.h"

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>
#include <type_traits>

#include "../emu/emu.h"

namespace terse::ptx {

// --- addresses -----------------------------------------------------------------------------------

namespace {

[[noreturn]] void bad_address(const Op& op, std::uint64_t address, std::size_t bytes,
                              const char* what) {
  emu::fault("PTX line " + std::to_string(op.line) + ": " + std::to_string(bytes) +
             " bytes at address " + std::to_string(address) + ": " + what);
}

bool in_shared(const Thread& thread, std::uint64_t offset, std::size_t bytes) {
  return std::any_of(thread.shared.begin(), thread.shared.end(),
                     [&](const Region& region) { return region.contains(offset, bytes); });
}

bool in_device_memory(Thread& thread, std::uint64_t address, std::size_t bytes) {
  if (thread.last_global.contains(address, bytes)) return true;
  const emu::DeviceRange range = emu::device_allocation(reinterpret_cast<const void*>(address));
  const auto begin = reinterpret_cast<std::uint64_t>(range.begin);
  const Region region = {begin, begin + range.bytes};
  if (range.begin == nullptr || !region.contains(address, bytes)) {
    return thread.memory->contains(address, bytes);
  }
  thread.last_global = region;
  return true;
}

}  // namespace

void* locate(Thread& thread, const Op& op, Space space, std::uint64_t address, std::size_t bytes) {
  if (address % bytes != 0) bad_address(op, address, bytes, "misaligned");
  const auto window = reinterpret_cast<std::uint64_t>(emu::shared_window());
  if (space == Space::shared) {
    address += window;
  } else if (space == Space::generic && address - window < emu::kSharedWindowBytes) {
    space = Space::shared;
  }
  if (space == Space::shared) {
    if (!in_shared(thread, address - window, bytes)) {
      bad_address(op, address - window, bytes, "outside the block's shared memory");
    }
  } else if (space == Space::local || thread.local.contains(address, bytes)) {
    if (!thread.local.contains(address, bytes)) {
      bad_address(op, address, bytes, "outside the thread's local memory");
    }
  } else if (space == Space::parameter || thread.parameters.contains(address, bytes)) {
    if (!thread.parameters.contains(address, bytes)) {
      bad_address(op, address, bytes, "outside the kernel's parameters");
    }
  } else if (in_device_memory(thread, address, bytes)) {
    thread.work.global_bytes += bytes;
  } else {
    bad_address(op, address, bytes, "in no live device allocation");
  }
  return reinterpret_cast<void*>(address);
}

namespace {

// --- moves ---------------------------------------------------------------------------------------

template <class T>
void run_move(Thread& thread, const Op& op) {
  put(thread, op.d, get<T>(thread, op.a));
}
void run_move_predicate(Thread& thread, const Op& op) {
  thread.slots[op.d] = thread.slots[op.a] & 1;
}

// mov.b64 %rd, {%r1, %r2}: the first part is the lowest.
template <int N, class Part, class Whole>
void run_pack(Thread& thread, const Op& op) {
  Whole whole = 0;
  for (int part = N - 1; part >= 0; --part) {
    const std::uint32_t slot = thread.program->lists[op.list + static_cast<std::uint32_t>(part)];
    whole =
        static_cast<Whole>(std::uint64_t{whole} << (8 * sizeof(Part)) | get<Part>(thread, slot));
  }
  put(thread, op.d, whole);
}
template <int N, class Part, class Whole>
void run_unpack(Thread& thread, const Op& op) {
  std::uint64_t whole = get<Whole>(thread, op.a);
  for (std::uint32_t part = 0; part < N; ++part) {
    put(thread, thread.program->lists[op.list + part], static_cast<Part>(whole));
    whole >>= 8 * sizeof(Part);
  }
}

// Between generic and shared addresses; those of all other spaces are generic as they are.
void run_shared_to_generic(Thread& thread, const Op& op) {
  thread.slots[op.d] = thread.slots[op.a] + reinterpret_cast<std::uint64_t>(emu::shared_window());
}
void run_generic_to_shared(Thread& thread, const Op& op) {
  thread.slots[op.d] = thread.slots[op.a] - reinterpret_cast<std::uint64_t>(emu::shared_window());
}

// --- loads and stores ----------------------------------------------------------------------------

// A shared address is 32 bits even where a 64-bit register holds it; the base may be a register of
// either width.
std::uint64_t effective_address(const Thread& thread, const Op& op, Space space) {
  const std::uint64_t address = thread.slots[op.a] + static_cast<std::uint64_t>(op.offset);
  return space == Space::shared ? static_cast<std::uint32_t>(address) : address;
}

template <class T, int N, Space SPACE>
void run_load(Thread& thread, const Op& op) {
  const auto* from = static_cast<const T*>(
      locate(thread, op, SPACE, effective_address(thread, op, SPACE), N * sizeof(T)));
  if constexpr (N == 1) {
    put(thread, op.d, *from);
  } else {
    for (std::uint32_t part = 0; part < N; ++part) {
      put(thread, thread.program->lists[op.list + part], from[part]);
    }
  }
}
template <class T, int N, Space SPACE>
void run_store(Thread& thread, const Op& op) {
  auto* to = static_cast<T*>(
      locate(thread, op, SPACE, effective_address(thread, op, SPACE), N * sizeof(T)));
  for (std::uint32_t part = 0; part < N; ++part) {
    to[part] = get<T>(thread, thread.program->lists[op.list + part]);
  }
}

// --- atomics -------------------------------------------------------------------------------------

enum class Atomic : std::uint8_t {
  add,
  min,
  max,
  exchange,
  compare_and_swap,
  bit_and,
  bit_or,
  bit_xor
};

template <class T, Atomic KIND>
T combined(T seen, T value) {
  if constexpr (KIND == Atomic::add) {
    if constexpr (std::is_signed_v<T> && std::is_integral_v<T>) {
      using Unsigned = std::make_unsigned_t<T>;
      return static_cast<T>(static_cast<Unsigned>(seen) + static_cast<Unsigned>(value));
    } else {
      return seen + value;
    }
  }
  if constexpr (KIND == Atomic::min) return std::min(seen, value);
  if constexpr (KIND == Atomic::max) return std::max(seen, value);
  if constexpr (std::is_integral_v<T>) {
    if constexpr (KIND == Atomic::bit_and) return seen & value;
    if constexpr (KIND == Atomic::bit_or) return seen | value;
    if constexpr (KIND == Atomic::bit_xor) return seen ^ value;
  }
  return value;
}

// Returns what was there before.
template <class T, Atomic KIND, Space SPACE>
void run_atomic(Thread& thread, const Op& op) {
  using Bits = std::conditional_t<sizeof(T) == 8, std::uint64_t, std::uint32_t>;
  auto* word = static_cast<Bits*>(
      locate(thread, op, SPACE, effective_address(thread, op, SPACE), sizeof(T)));
  const T value = get<T>(thread, op.b);
  Bits seen = __atomic_load_n(word, __ATOMIC_RELAXED);
  if constexpr (KIND == Atomic::compare_and_swap) {
    seen = get<Bits>(thread, op.b);
    __atomic_compare_exchange_n(word, &seen, get<Bits>(thread, op.c), false, __ATOMIC_RELAXED,
                                __ATOMIC_RELAXED);
  } else {
    while (!__atomic_compare_exchange_n(
        word, &seen, std::bit_cast<Bits>(combined<T, KIND>(std::bit_cast<T>(seen), value)), false,
        __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
  }
  put(thread, op.d, seen);
}

// What fences order is ordered by barriers and atomics in the emulation too.
void run_fence(Thread&, const Op&) {}

// --- decoding ------------------------------------------------------------------------------------

Space take_space(Decoder& decoder) {
  if (decoder.take("shared") || decoder.take("shared::cta")) return Space::shared;
  if (decoder.take("global")) return Space::global;
  if (decoder.take("const")) return Space::constant;
  if (decoder.take("local")) return Space::local;
  if (decoder.take("param")) return Space::parameter;
  return Space::generic;
}

// Hints where a line is kept change no result.
void skip_cache_hints(Decoder& decoder) {
  for (const std::string_view hint : {"ca", "cg", "cs", "lu", "cv", "wb", "wt"}) {
    if (decoder.take(hint)) break;
  }
  for (const std::string_view hint : {"L1::evict_normal", "L1::evict_unchanged", "L1::evict_first",
                                      "L1::evict_last", "L1::no_allocate"}) {
    if (decoder.take(hint)) break;
  }
  for (const std::string_view hint : {"L2::64B", "L2::128B", "L2::256B"}) {
    if (decoder.take(hint)) break;
  }
}

std::uint32_t take_width(Decoder& decoder) {
  if (decoder.take("v2")) return 2;
  if (decoder.take("v4")) return 4;
  return 1;
}

template <class Action>
bool with_memory_type(std::string_view type, Action&& action) {
  if (type == "f32") return action.template operator()<std::uint32_t>(), true;
  if (type == "f64") return action.template operator()<std::uint64_t>(), true;
  if (type == "u8" || type == "b8") return action.template operator()<std::uint8_t>(), true;
  if (type == "s8") return action.template operator()<std::int8_t>(), true;
  return with_integer(type, action);
}

template <Space SPACE, class T>
void choose_access(Op& op, bool store, std::uint32_t width) {
  if (width == 1) op.run = store ? run_store<T, 1, SPACE> : run_load<T, 1, SPACE>;
  if (width == 2) op.run = store ? run_store<T, 2, SPACE> : run_load<T, 2, SPACE>;
  if constexpr (sizeof(T) <= 4) {
    if (width == 4) op.run = store ? run_store<T, 4, SPACE> : run_load<T, 4, SPACE>;
  }
}
template <class T>
void choose_access(Op& op, Space space, bool store, std::uint32_t width) {
  switch (space) {
    case Space::shared:
      return choose_access<Space::shared, T>(op, store, width);
    case Space::parameter:
      return choose_access<Space::parameter, T>(op, store, width);
    case Space::local:
      return choose_access<Space::local, T>(op, store, width);
    case Space::generic:
      return choose_access<Space::generic, T>(op, store, width);
    default:
      return choose_access<Space::global, T>(op, store, width);
  }
}

void decode_access(Decoder& decoder, bool store) {
  // Volatile and relaxed accesses are plain ones here: a race on them is reported all the same.
  if (!decoder.take("volatile") && decoder.take("relaxed")) {
    decoder.take_one_of({"cta", "gpu", "sys"});
  }
  const Space space = take_space(decoder);
  if (!store && space == Space::global) decoder.take("nc");
  skip_cache_hints(decoder);
  const std::uint32_t width = take_width(decoder);
  const std::string type = decoder.take_any();
  decoder.finish(2);
  if (store && (space == Space::constant || space == Space::parameter)) decoder.unknown();
  Op op;
  if (!with_memory_type(type, [&]<class T>() { choose_access<T>(op, space, store, width); }) ||
      op.run == nullptr) {
    decoder.unknown();
  }
  decoder.address(store ? 0 : 1, op.a, op.offset);
  const Operand& value = decoder.operand(store ? 1 : 0);
  if (store || width > 1) {
    op.list = decoder.list(value, width, !store);
  } else {
    op.d = decoder.destination(value);
  }
  decoder.emit(op);
}

template <class T, Atomic KIND>
auto atomic_in(Space space) -> void (*)(Thread&, const Op&) {
  if (space == Space::shared) return run_atomic<T, KIND, Space::shared>;
  if (space == Space::generic) return run_atomic<T, KIND, Space::generic>;
  return run_atomic<T, KIND, Space::global>;
}

template <class T>
auto choose_atomic(std::size_t kind, Space space) -> void (*)(Thread&, const Op&) {
  switch (kind) {
    case 0:
      return atomic_in<T, Atomic::add>(space);
    case 1:
      return atomic_in<T, Atomic::min>(space);
    case 2:
      return atomic_in<T, Atomic::max>(space);
    case 3:
      return atomic_in<T, Atomic::exchange>(space);
    case 4:
      return atomic_in<T, Atomic::compare_and_swap>(space);
    case 5:
      return atomic_in<T, Atomic::bit_and>(space);
    case 6:
      return atomic_in<T, Atomic::bit_or>(space);
    default:
      return atomic_in<T, Atomic::bit_xor>(space);
  }
}

void decode_atomic(Decoder& decoder, bool returns) {
  if (decoder.take("relaxed")) decoder.take_one_of({"cta", "gpu", "sys"});
  const Space space = take_space(decoder);
  const std::size_t kind =
      decoder.take_one_of({"add", "min", "max", "exch", "cas", "and", "or", "xor"});
  const std::string type = decoder.take_any();
  const std::size_t num_values = kind == 4 ? 2 : 1;
  const std::size_t first = returns ? 1 : 0;
  decoder.finish(first + 1 + num_values);
  Op op;
  if (type == "f32" && kind == 0) {
    op.run = atomic_in<float, Atomic::add>(space);
  } else {
    with_integer(type, [&]<class T>() {
      if constexpr (sizeof(T) >= 4) op.run = choose_atomic<T>(kind, space);
    });
  }
  if (op.run == nullptr || space == Space::constant || space == Space::parameter) decoder.unknown();
  op.d = returns ? decoder.destination(0) : kSinkSlot;
  decoder.address(first, op.a, op.offset);
  op.b = decoder.source(first + 1);
  if (num_values == 2) op.c = decoder.source(first + 2);
  decoder.emit(op);
}

// mov between a register and the parts in braces.
void decode_pack(Decoder& decoder, Op& op, std::size_t bytes, bool pack) {
  const Operand& parts = decoder.operand(pack ? 1 : 0);
  const std::size_t count = parts.parts.size();
  op.list = decoder.list(parts, count, !pack);
  if (pack) {
    op.d = decoder.destination(0);
  } else {
    op.a = decoder.source(1);
  }
  using u8 = std::uint8_t;
  using u16 = std::uint16_t;
  using u32 = std::uint32_t;
  using u64 = std::uint64_t;
  if (bytes == 4 && count == 2) op.run = pack ? run_pack<2, u16, u32> : run_unpack<2, u16, u32>;
  if (bytes == 8 && count == 2) op.run = pack ? run_pack<2, u32, u64> : run_unpack<2, u32, u64>;
  if (bytes == 8 && count == 4) op.run = pack ? run_pack<4, u16, u64> : run_unpack<4, u16, u64>;
  if (bytes == 4 && count == 4) op.run = pack ? run_pack<4, u8, u32> : run_unpack<4, u8, u32>;
  if (bytes == 2 && count == 2) op.run = pack ? run_pack<2, u8, u16> : run_unpack<2, u8, u16>;
}

void decode_move(Decoder& decoder) {
  const std::string type = decoder.take_any();
  decoder.finish(2);
  const std::size_t bytes = type_bytes(type, decoder.line());
  Op op;
  const bool pack = decoder.operand(1).kind == Operand::Kind::list;
  if (pack || decoder.operand(0).kind == Operand::Kind::list) {
    decode_pack(decoder, op, bytes, pack);
  } else {
    op.d = decoder.destination(0);
    op.a = decoder.source(1);
    if (type == "pred") op.run = run_move_predicate;
    if (bytes == 2) op.run = run_move<std::uint16_t>;
    if (bytes == 4) op.run = run_move<std::uint32_t>;
    if (bytes == 8) op.run = run_move<std::uint64_t>;
  }
  if (op.run == nullptr) decoder.unknown();
  decoder.emit(op);
}

void decode_address_conversion(Decoder& decoder) {
  const bool to_space = decoder.take("to");
  const Space space = take_space(decoder);
  if (space == Space::generic) decoder.unknown();
  decoder.require("u64");
  decoder.finish(2);
  Op op;
  op.run = space != Space::shared ? run_move<std::uint64_t>
           : to_space             ? run_generic_to_shared
                                  : run_shared_to_generic;
  op.d = decoder.destination(0);
  op.a = decoder.source(1);
  decoder.emit(op);
}

void decode_fence(Decoder& decoder) {
  if (decoder.opcode() == "membar") {
    decoder.take_one_of({"cta", "gl", "sys"});
  } else {
    decoder.take_one_of({"sc", "acq_rel"});
    decoder.take_one_of({"cta", "gpu", "sys"});
  }
  decoder.finish(0);
  Op op;
  op.run = run_fence;
  decoder.emit(op);
}

}  // namespace

bool decode_memory(Decoder& decoder) {
  const std::string& opcode = decoder.opcode();
  if (opcode == "mov") {
    decode_move(decoder);
  } else if (opcode == "ld" || opcode == "st") {
    decode_access(decoder, opcode == "st");
  } else if (opcode == "atom" || opcode == "red") {
    decode_atomic(decoder, opcode == "atom");
  } else if (opcode == "cvta") {
    decode_address_conversion(decoder);
  } else if (opcode == "membar" || opcode == "fence") {
    decode_fence(decoder);
  } else {
    return false;
  }
  return true;
}

}  // namespace terse::ptx
