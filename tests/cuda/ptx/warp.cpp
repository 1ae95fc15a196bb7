// Instructions of several threads: barriers, shuffles, votes, asynchronous copies and matrices. All
// are calls of the emulation's own functions, with the PTX line as their site.
// Source: PTX ISA, sections 9.7.9 (cp.async), 9.7.13 (synchronisation) and 9.7.14 (matrices).
#include <array>
#include <bit>
#include <cstdint>

#include "../emu/emu.h"
#include "memory.h"

namespace terse::ptx {
namespace {

emu::Site site(const Op& op) { return {"PTX", op.line, 0}; }

// --- block ---------------------------------------------------------------------------------------

void run_barrier(Thread&, const Op& op) { emu::block_barrier(site(op)); }
template <emu::Vote VOTE>
void run_barrier_vote(Thread& thread, const Op& op) {
  const int result = emu::block_vote(site(op), VOTE, get_predicate(thread, op.a));
  thread.slots[op.d] = static_cast<std::uint32_t>(result);
}

// --- warp ----------------------------------------------------------------------------------------

void run_warp_barrier(Thread& thread, const Op& op) {
  emu::warp_barrier(site(op), get<std::uint32_t>(thread, op.a));
}

// c holds the width as 32 - width in bits 8 to 12, and the clamp in bits 0 to 4, which is 0 for up
// and 31 for the others in all that nvcc makes of width-based shuffles. d gets the value, the slot
// in `list` the predicate.
template <emu::Shuffle KIND>
void run_shuffle(Thread& thread, const Op& op) {
  const auto control = get<std::uint32_t>(thread, op.c);
  const std::uint32_t segment = (control >> 8) & 31;
  const int width = static_cast<int>(32 - segment);
  const std::uint32_t clamp = KIND == emu::Shuffle::up ? 0 : 31;
  if ((control & 31) != clamp || (width & (width - 1)) != 0) {
    emu::fault("shfl.sync: a clamp or segment that no width gives");
  }
  const auto mask = get<std::uint32_t>(thread, thread.program->lists[op.list]);
  bool in_range = false;
  const std::uint64_t result = emu::shuffle(site(op), KIND, mask, get<std::uint32_t>(thread, op.a),
                                            get<std::uint32_t>(thread, op.b), width, &in_range);
  put(thread, op.d, static_cast<std::uint32_t>(result));
  thread.slots[thread.program->lists[op.list + 1]] = in_range ? 1 : 0;
}

enum VoteKind : std::uint32_t { kAll, kAny, kUniform, kBallot };
void run_vote(Thread& thread, const Op& op) {
  const auto mask = get<std::uint32_t>(thread, op.b);
  const std::uint32_t votes = emu::ballot(site(op), mask, get_predicate(thread, op.a));
  std::uint32_t result = votes;
  if (op.flags == kAll) result = votes == mask;
  if (op.flags == kAny) result = votes != 0;
  if (op.flags == kUniform) result = votes == 0 || votes == mask;
  put(thread, op.d, result);
}

void run_reduce(Thread& thread, const Op& op) {
  put(thread, op.d,
      emu::reduce(site(op), static_cast<emu::Reduce>(op.flags), get<std::uint32_t>(thread, op.b),
                  get<std::uint32_t>(thread, op.a)));
}

// --- asynchronous copies -------------------------------------------------------------------------

// flags: bytes; the slot c holds how many of them come from global memory.
void run_copy(Thread& thread, const Op& op) {
  const auto source_bytes = get<std::uint32_t>(thread, op.c);
  if (source_bytes > op.flags) emu::fault("cp.async: source size beyond the copy's");
  const std::uint32_t address =
      get<std::uint32_t>(thread, op.a) + static_cast<std::uint32_t>(op.offset);
  void* to = locate(thread, op, Space::shared, address, op.flags);
  const std::uint64_t source = thread.slots[op.b] + thread.slots[thread.program->lists[op.list]];
  // A copy of no bytes may come from anywhere.
  const void* from = source_bytes == 0 ? reinterpret_cast<const void*>(source)
                                       : locate(thread, op, Space::global, source, op.flags);
  emu::async_copy(to, from, op.flags, source_bytes);
}
void run_commit(Thread&, const Op&) { emu::async_commit(); }
void run_wait(Thread&, const Op& op) { emu::async_wait(static_cast<int>(op.flags)); }

// --- matrices ------------------------------------------------------------------------------------

// flags: matrices, and kTransposed.
constexpr std::uint32_t kTransposed = 8;
void run_load_matrix(Thread& thread, const Op& op) {
  const std::uint32_t address =
      get<std::uint32_t>(thread, op.a) + static_cast<std::uint32_t>(op.offset);
  const std::uint32_t num_matrices = op.flags & 7;
  const void* row = locate(thread, op, Space::shared, address, 16);
  std::array<std::uint32_t, 4> out{};
  emu::load_matrix(site(op), static_cast<int>(num_matrices), (op.flags & kTransposed) != 0,
                   out.data(), row);
  for (std::uint32_t matrix = 0; matrix < num_matrices; ++matrix) {
    put(thread, thread.program->lists[op.list + matrix], out[matrix]);
  }
}

// lists: d (4), a (4), b (2), c (4)
template <emu::Element ELEMENT>
void run_multiply(Thread& thread, const Op& op) {
  const std::uint32_t* slots = thread.program->lists.data() + op.list;
  std::array<std::uint32_t, 4> a{};
  std::array<std::uint32_t, 2> b{};
  std::array<float, 4> d{};
  for (std::size_t index = 0; index < 4; ++index)
    a[index] = get<std::uint32_t>(thread, slots[4 + index]);
  for (std::size_t index = 0; index < 2; ++index)
    b[index] = get<std::uint32_t>(thread, slots[8 + index]);
  for (std::size_t index = 0; index < 4; ++index) d[index] = get<float>(thread, slots[10 + index]);
  thread.work.flops += 4096 / 32;
  emu::multiply(site(op), ELEMENT, d.data(), a.data(), b.data());
  for (std::size_t index = 0; index < 4; ++index) put(thread, slots[index], d[index]);
}

// --- decoding ------------------------------------------------------------------------------------

// bar.sync, barrier.sync and barrier.sync.aligned of barrier 0 and all threads, bar.red, and
// bar.warp.sync.
void decode_barrier(Decoder& decoder) {
  Op op;
  if (decoder.take("warp")) {
    decoder.require("sync");
    decoder.finish(1);
    op.run = run_warp_barrier;
    op.a = decoder.source(0);
    decoder.emit(op);
    return;
  }
  decoder.take("cta");
  if (decoder.take("sync")) {
    decoder.take("aligned");
    decoder.finish(1);
    if (decoder.immediate(0) != 0) decoder.refuse_here("barriers other than 0 are not modelled");
    op.run = run_barrier;
    decoder.emit(op);
    return;
  }
  decoder.require("red");
  const std::size_t kind = decoder.take_one_of({"and", "or", "popc"});
  decoder.take("aligned");
  decoder.require(kind == 2 ? "u32" : "pred");
  decoder.finish(3);
  if (decoder.immediate(1) != 0) decoder.refuse_here("barriers other than 0 are not modelled");
  op.run = kind == 0   ? run_barrier_vote<emu::Vote::all>
           : kind == 1 ? run_barrier_vote<emu::Vote::any>
                       : run_barrier_vote<emu::Vote::count>;
  op.d = decoder.destination(0);
  op.a = decoder.source(2);
  decoder.emit(op);
}

void decode_shuffle(Decoder& decoder) {
  decoder.require("sync");
  const std::size_t kind = decoder.take_one_of({"up", "down", "bfly", "idx"});
  decoder.require("b32");
  decoder.finish(5);
  Op op;
  op.run = kind == 0   ? run_shuffle<emu::Shuffle::up>
           : kind == 1 ? run_shuffle<emu::Shuffle::down>
           : kind == 2 ? run_shuffle<emu::Shuffle::exclusive_or>
                       : run_shuffle<emu::Shuffle::index>;
  const Operand& target = decoder.operand(0);
  const bool is_pair = target.kind == Operand::Kind::pair;
  op.d = decoder.destination(is_pair ? target.parts[0] : target);
  op.a = decoder.source(1);
  op.b = decoder.source(2);
  op.c = decoder.source(3);
  op.list = decoder.list(decoder.operand(4), 1, false);
  Operand sink;
  sink.name = "_";
  decoder.list(is_pair ? target.parts[1] : sink, 1, true);
  decoder.emit(op);
}

void decode_vote(Decoder& decoder) {
  decoder.require("sync");
  Op op;
  op.run = run_vote;
  op.flags = static_cast<std::uint32_t>(decoder.take_one_of({"all", "any", "uni", "ballot"}));
  decoder.require(op.flags == kBallot ? "b32" : "pred");
  decoder.finish(3);
  op.d = decoder.destination(0);
  op.a = decoder.source(1);
  op.b = decoder.source(2);
  decoder.emit(op);
}

void decode_reduce(Decoder& decoder) {
  decoder.require("sync");
  const std::size_t kind = decoder.take_one_of({"add", "min", "max", "and", "or", "xor"});
  const std::string type = decoder.take_any();
  decoder.finish(3);
  static constexpr emu::Reduce kUnsigned[] = {emu::Reduce::add,    emu::Reduce::min,
                                              emu::Reduce::max,    emu::Reduce::bit_and,
                                              emu::Reduce::bit_or, emu::Reduce::bit_xor};
  static constexpr emu::Reduce kSigned[] = {emu::Reduce::add, emu::Reduce::min_signed,
                                            emu::Reduce::max_signed};
  const bool is_signed = type == "s32";
  if (kind < 3 ? !is_signed && type != "u32" : type != "b32") decoder.unknown();
  Op op;
  op.run = run_reduce;
  op.flags = static_cast<std::uint32_t>(is_signed ? kSigned[kind] : kUnsigned[kind]);
  op.d = decoder.destination(0);
  op.a = decoder.source(1);
  op.b = decoder.source(2);
  decoder.emit(op);
}

void decode_copy(Decoder& decoder) {
  decoder.require("async");
  Op op;
  if (decoder.take("commit_group")) {
    decoder.finish(0);
    op.run = run_commit;
  } else if (decoder.take("wait_all")) {
    decoder.finish(0);
    op.run = run_commit;
    decoder.emit(op);
    op.run = run_wait;
  } else if (decoder.take("wait_group")) {
    decoder.finish(1);
    op.run = run_wait;
    op.flags = static_cast<std::uint32_t>(decoder.immediate(0));
  } else {
    const bool only_16 = decoder.take_one_of({"cg", "ca"}) == 0;
    decoder.take_one_of({"shared", "shared::cta"});
    decoder.require("global");
    for (const std::string_view hint : {"L2::64B", "L2::128B", "L2::256B"}) decoder.take(hint);
    decoder.finish(decoder.num_operands() == 4 ? 4 : 3);
    op.run = run_copy;
    op.flags = static_cast<std::uint32_t>(decoder.immediate(2));
    if (op.flags != 16 && (only_16 || (op.flags != 4 && op.flags != 8))) decoder.unknown();
    decoder.address(0, op.a, op.offset);
    std::int64_t source_offset = 0;
    decoder.address(1, op.b, source_offset);
    op.c = decoder.num_operands() == 4 ? decoder.source(3) : decoder.constant(op.flags);
    Operand offset;
    offset.kind = Operand::Kind::integer;
    offset.bits = static_cast<std::uint64_t>(source_offset);
    op.list = decoder.list(offset, 1, false);
  }
  decoder.emit(op);
}

void decode_load_matrix(Decoder& decoder) {
  for (const std::string_view modifier : {"sync", "aligned", "m8n8"}) decoder.require(modifier);
  const std::uint32_t num_matrices = 1U << decoder.take_one_of({"x1", "x2", "x4"});
  const bool transposed = decoder.take("trans");
  decoder.take_one_of({"shared", "shared::cta"});
  decoder.require("b16");
  decoder.finish(2);
  Op op;
  op.run = run_load_matrix;
  op.flags = num_matrices | (transposed ? kTransposed : 0);
  op.list = decoder.list(decoder.operand(0), num_matrices, true);
  decoder.address(1, op.a, op.offset);
  decoder.emit(op);
}

void decode_multiply(Decoder& decoder) {
  for (const std::string_view modifier : {"sync", "aligned", "m16n8k16", "row", "col", "f32"}) {
    decoder.require(modifier);
  }
  Op op;
  if (decoder.take_one_of({"bf16", "f16"}) == 0) {
    op.run = run_multiply<emu::Element::bf16>;
    decoder.require("bf16");
  } else {
    op.run = run_multiply<emu::Element::f16>;
    decoder.require("f16");
  }
  decoder.require("f32");
  decoder.finish(4);
  op.list = decoder.list(decoder.operand(0), 4, true);
  decoder.list(decoder.operand(1), 4, false);
  decoder.list(decoder.operand(2), 2, false);
  decoder.list(decoder.operand(3), 4, false);
  decoder.emit(op);
}

}  // namespace

bool decode_warp(Decoder& decoder) {
  const std::string& opcode = decoder.opcode();
  if (opcode == "bar" || opcode == "barrier") {
    decode_barrier(decoder);
  } else if (opcode == "shfl") {
    decode_shuffle(decoder);
  } else if (opcode == "vote") {
    decode_vote(decoder);
  } else if (opcode == "redux") {
    decode_reduce(decoder);
  } else if (opcode == "cp") {
    decode_copy(decoder);
  } else if (opcode == "ldmatrix") {
    decode_load_matrix(decoder);
  } else if (opcode == "mma") {
    decode_multiply(decoder);
  } else {
    return false;
  }
  return true;
}

}  // namespace terse::ptx
