// The interpreter's memory, control flow and instructions of several threads; what it must refuse.
#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <functional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "../../support.h"
#include "snippet.h"
#include "terse/dtype.h"

using namespace terse::ptx::test;

namespace {

using u32 = std::uint32_t;

std::vector<u32> numbers(std::size_t count) {
  std::vector<u32> values(count);
  std::mt19937 random(3);
  for (u32& value : values) value = static_cast<u32>(random());
  return values;
}

// The text of the fault that a snippet ends with; empty if it ends well.
std::string fault_of(const std::string& body, unsigned num_threads = 32,
                     const std::string& before = "", std::size_t dynamic_smem = 0) {
  try {
    run<u32>(body, numbers(64), 64, num_threads, before, dynamic_smem);
  } catch (const std::exception& error) {
    return error.what();
  }
  return "";
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

// Stores %r1 of each thread at out[tid].
const std::string kStoreResult =
    "mul.wide.u32 %rd30, %t, 4; add.s64 %rd30, %rd30, %out; st.global.u32 [%rd30], %r1;";
// Loads in[tid] into %r0.
const std::string kLoadInput =
    "mul.wide.u32 %rd29, %t, 4; add.s64 %rd29, %rd29, %in; ld.global.u32 %r0, [%rd29];\n";

}  // namespace

TEST_CASE("loads and stores of every width, sign extension and vectors") {
  const std::vector<u32> in = {0x80ff7f01U, 2, 3, 4, 5, 6, 7, 8};
  const auto got = run<u32>(
      "ld.global.u8 %r1, [%in+2]; ld.global.s8 %r2, [%in+3]; ld.global.u16 %r3, [%in+2];\n"
      "ld.global.s16 %r4, [%in+2]; ld.global.nc.v2.u32 {%r5, %r6}, [%in+8];\n"
      "ld.global.v4.u32 {%r7, %r8, %r9, %r10}, [%in+16]; ld.global.v2.u64 {%rd1, %rd2}, [%in];\n"
      "ld.global.L1::no_allocate.f32 %f1, [%in+4];\n"
      "st.global.v4.u32 [%out], {%r1, %r2, %r3, %r4};\n"
      "st.global.v4.u32 [%out+16], {%r5, %r6, %r7, %r10};\n"
      "st.global.v2.u64 [%out+32], {%rd2, %rd1}; st.global.u8 [%out+48], %r7;\n"
      "st.global.u16 [%out+50], %r8; st.global.f32 [%out+52], %f1;\n"
      "mov.b64 {%r11, %r12}, %rd1; mov.b64 %rd3, {%r12, %r11}; st.global.u64 [%out+56], %rd3;",
      in, 16);
  CHECK(got == std::vector<u32>{0xff, 0xffffff80U, 0x80ff, 0xffff80ffU, 3, 4, 5, 8, 3, 4,
                                0x80ff7f01U, 2, 0x00060005U, 2, 2, 0x80ff7f01U});
}

TEST_CASE("shared, local, constant and generic addresses name the same bytes") {
  const std::string before =
      ".const .align 4 .b8 table[8] = {1, 2, 3, 4, 5, 6, 7, 8};\n"
      ".extern .shared .align 16 .b8 dynamic[];";
  const auto got = run<u32>(
      ".shared .align 4 .b8 fixed[16]; .local .align 8 .b8 own[16];\n"
      "mov.u32 %r2, fixed; st.shared.u32 [%r2+4], 77; ld.shared.u32 %r3, [fixed+4];\n"
      "mov.u64 %rd1, fixed; cvta.shared.u64 %rd2, %rd1; ld.u32 %r4, [%rd2+4];\n"
      "cvta.to.shared.u64 %rd3, %rd2; cvt.u32.u64 %r5, %rd3; sub.s32 %r5, %r5, %r2;\n"
      "mov.u64 %rd4, own; cvta.local.u64 %rd5, %rd4; st.local.u32 [own+8], 5; ld.u32 %r6, "
      "[%rd5+8];\n"
      "mov.u64 %rd6, table; ld.const.u32 %r7, [%rd6+4]; ld.const.u16 %r8, [table+2];\n"
      "mov.u32 %r9, dynamic; st.shared.u32 [%r9+28], 9; ld.shared.u32 %r10, [dynamic+28];\n"
      "st.global.v4.u32 [%out], {%r3, %r4, %r5, %r6};\n"
      "st.global.v4.u32 [%out+16], {%r7, %r8, %r10, 0};",
      std::vector<u32>{0}, 8, 1, before, 32);
  CHECK(got == std::vector<u32>{77, 77, 0, 5, 0x08070605U, 0x0403, 9, 0});
}

TEST_CASE("a bad address is a fault that says what is wrong with it") {
  CHECK(contains(fault_of("ld.global.u32 %r1, [%in+2];"), "misaligned"));
  CHECK(contains(fault_of("ld.global.v4.u32 {%r1, %r2, %r3, %r4}, [%in+4];"), "misaligned"));
  CHECK(contains(fault_of("ld.global.u32 %r1, [%in+256];"), "no live device allocation"));
  CHECK(contains(fault_of("ld.global.u32 %r1, [%in+-4];"), "no live device allocation"));
  CHECK(contains(fault_of("st.global.u64 [0], %rd1;"), "no live device allocation"));
  const std::string shared = ".shared .align 4 .b8 a[16]; .shared .align 4 .b8 b[16];\n";
  CHECK(fault_of(shared + "st.shared.u32 [a+12], 1; st.shared.u32 [b], 1;", 1) == "");
  CHECK(
      contains(fault_of(shared + "st.shared.u32 [a+16], 1;"), "outside the block's shared memory"));
  CHECK(
      contains(fault_of(shared + "st.shared.u32 [b+-4], 1;"), "outside the block's shared memory"));
  CHECK(contains(fault_of(".local .align 4 .b8 own[16]; st.local.u32 [own+16], 1;"),
                 "outside the thread's local memory"));
  CHECK(contains(fault_of("ld.param.u32 %r1, [p_in+16];"), "outside the kernel's parameters"));
  CHECK(contains(fault_of("trap;"), "trap"));
}

TEST_CASE("branches, predicated instructions, loops and inner scopes") {
  const std::string body = kLoadInput +
                           "and.b32 %r2, %r0, 3; mov.u32 %r1, 0;\n"
                           "setp.eq.s32 %p1, %r2, 0; @%p1 bra DONE;\n"
                           "LOOP: add.s32 %r1, %r1, %r2; add.s32 %r2, %r2, -1;\n"
                           "{ .reg .pred %q; .reg .b32 %r2x; mov.u32 %r2x, %r2;\n"
                           "setp.ne.s32 %q, %r2x, 0; @%q bra LOOP; }\n"
                           "DONE: setp.gt.s32 %p2, %r1, 2; @!%p2 add.s32 %r1, %r1, 100;\n" +
                           kStoreResult;
  const std::vector<u32> in = numbers(64);
  const auto got = run<u32>(body, in, 64, 64);
  for (std::size_t i = 0; i < 64; ++i) {
    const u32 n = in[i] & 3;
    const u32 sum = n * (n + 1) / 2;
    CHECK(got[i] == (sum > 2 ? sum : sum + 100));
  }
  // A guard that the instruction's own first destination overwrites.
  const auto kept = run<u32>(
      "setp.eq.s32 %p1, 0, 0; @%p1 setp.eq.and.s32 %p2|%p1, 1, 1, %p1; selp.u32 %r1, 1, 0, %p1;\n"
      "selp.u32 %r2, 1, 0, %p2; st.global.v2.u32 [%out], {%r1, %r2};",
      in, 2);
  CHECK(kept == std::vector<u32>{0, 1});
  const auto indexed = run<u32>(kLoadInput +
                                    "and.b32 %r2, %r0, 1; mov.u32 %r1, 1;\n"
                                    "TARGETS: .branchtargets EVEN, ODD;\n"
                                    "brx.idx %r2, TARGETS;\n"
                                    "EVEN: mov.u32 %r1, 20; bra.uni END; ODD: mov.u32 %r1, 30;\n"
                                    "END: " +
                                    kStoreResult,
                                in, 64, 64);
  for (std::size_t i = 0; i < 64; ++i) CHECK(indexed[i] == ((in[i] & 1) != 0 ? 30 : 20));
}

TEST_CASE("special registers") {
  const auto got = values_of<u32>(run_bytes(
      kernel_text("mov.u32 %r1, %ctaid.x; mov.u32 %r2, %ntid.x; mov.u32 %r3, %nctaid.x;\n"
                  "mad.lo.u32 %r4, %r1, %r2, %t; mul.wide.u32 %rd1, %r4, 16;\n"
                  "add.s64 %rd1, %rd1, %out; mov.u32 %r5, %laneid; mov.u32 %r6, %ntid.z;\n"
                  "st.global.v4.u32 [%rd1], {%r1, %r5, %r3, %r6};"),
      std::vector<std::byte>(16), 3 * 40 * 16, 40, 3));
  for (u32 i = 0; i < 120; ++i) {
    CHECK(got[4 * i] == i / 40);
    CHECK(got[4 * i + 1] == i % 40 % 32);
    CHECK(got[4 * i + 2] == 3);
    CHECK(got[4 * i + 3] == 1);
  }
}

TEST_CASE("atomics of all threads of all blocks") {
  const auto got = values_of<u32>(run_bytes(
      kernel_text(
          "mov.u32 %r1, %ctaid.x; mad.lo.u32 %r2, %r1, 64, %t;\n"
          "red.global.add.u32 [%out], %r2; atom.global.add.u32 %r3, [%out+4], 1;\n"
          "atom.global.max.s32 %r4, [%out+8], %r2; red.global.or.b32 [%out+12], %r2;\n"
          "atom.global.cas.b32 %r5, [%out+16], 0, %r2; atom.add.f32 %f1, [%out+20], 0f3F000000;\n"
          "mul.wide.u32 %rd1, %r3, 4; add.s64 %rd1, %rd1, %out; st.global.u32 [%rd1+32], %r2;"),
      std::vector<std::byte>(16), 32 + 4 * 192, 64, 3));
  CHECK(got[0] == 191 * 192 / 2);
  CHECK(got[1] == 192);
  CHECK(got[2] == 191);
  CHECK(got[3] == 255);
  CHECK(got[4] > 0);
  CHECK(std::bit_cast<float>(got[5]) == 96);
  std::vector<u32> places(got.begin() + 8, got.end());
  std::sort(places.begin(), places.end());
  for (u32 i = 0; i < 192; ++i) CHECK(places[i] == i);  // each old value was given once
}

TEST_CASE("shuffles of every kind and width, by their definition") {
  const std::vector<u32> in = numbers(64);
  for (const std::string kind : {"up", "down", "bfly", "idx"}) {
    for (const u32 width : {32U, 16U, 8U, 2U}) {
      for (const u32 operand : {0U, 1U, 5U, 16U, 31U}) {
        const u32 control = (32 - width) << 8 | (kind == "up" ? 0 : 31);
        const auto got = run<u32>(kLoadInput + "shfl.sync." + kind + ".b32 %r1|%p1, %r0, " +
                                      std::to_string(operand) + ", " + std::to_string(control) +
                                      ", -1;\n@!%p1 add.s32 %r1, %r1, 1;\n" + kStoreResult,
                                  in, 64, 64);
        std::size_t wrong = 0;
        for (u32 t = 0; t < 64; ++t) {
          const int lane = static_cast<int>(t % width);
          const int first = static_cast<int>(t) - lane;
          const int delta = static_cast<int>(operand);
          int from = kind == "up"     ? lane - delta
                     : kind == "down" ? lane + delta
                     : kind == "bfly" ? (static_cast<int>(t % 32) ^ delta) - first % 32
                                      : delta & static_cast<int>(width - 1);
          // A butterfly may reach into earlier groups of lanes, but not into later ones.
          const bool inside = (from >= 0 || kind == "bfly") && from < static_cast<int>(width);
          if (!inside) from = lane;
          wrong += got[t] != in[static_cast<std::size_t>(first + from)] + (inside ? 0 : 1);
        }
        CAPTURE(kind);
        CAPTURE(width);
        CAPTURE(operand);
        CHECK(wrong == 0);
      }
    }
  }
}

TEST_CASE("votes, reductions and barriers") {
  const std::vector<u32> in = numbers(64);
  const auto got = run<u32>(
      kLoadInput +
          "and.b32 %r2, %r0, 1; setp.ne.s32 %p1, %r2, 0;\n"
          "vote.sync.ballot.b32 %r3, %p1, -1; vote.sync.any.pred %p2, %p1, -1;\n"
          "vote.sync.all.pred %p3, %p1, -1; redux.sync.add.s32 %r4, %r2, -1;\n"
          "redux.sync.max.u32 %r5, %r0, -1; redux.sync.min.s32 %r6, %r0, -1;\n"
          "bar.red.popc.u32 %r7, 0, %p1; bar.red.and.pred %p4, 0, %p1;\n"
          "bar.red.or.pred %p5, 0, %p1; selp.u32 %r8, 1, 0, %p2; selp.u32 %r9, 2, 0, %p3;\n"
          "selp.u32 %r10, 4, 0, %p4; selp.u32 %r11, 8, 0, %p5; or.b32 %r8, %r8, %r9;\n"
          "or.b32 %r8, %r8, %r10; or.b32 %r8, %r8, %r11; bar.warp.sync -1; bar.sync 0;\n"
          "barrier.sync.aligned 0;\n"
          "mul.wide.u32 %rd1, %t, 32; add.s64 %rd1, %rd1, %out;\n"
          "st.global.v4.u32 [%rd1], {%r3, %r4, %r5, %r6}; st.global.v2.u32 [%rd1+16], {%r7, %r8};",
      in, 64 * 8, 64);
  u32 odd = 0;
  for (const u32 value : in) odd += value & 1;
  for (u32 t = 0; t < 64; ++t) {
    u32 ballot = 0;
    u32 max = 0;
    std::int32_t min = INT32_MAX;
    for (u32 lane = 0; lane < 32; ++lane) {
      const u32 value = in[t / 32 * 32 + lane];
      ballot |= (value & 1) << lane;
      max = std::max(max, value);
      min = std::min(min, static_cast<std::int32_t>(value));
    }
    CHECK(got[8 * t] == ballot);
    CHECK(got[8 * t + 1] == static_cast<u32>(std::popcount(ballot)));
    CHECK(got[8 * t + 2] == max);
    CHECK(got[8 * t + 3] == static_cast<u32>(min));
    CHECK(got[8 * t + 4] == odd);
    CHECK(got[8 * t + 5] == 1 + 8);  // some, not all, are odd
  }
}

TEST_CASE("divergence is found in PTX too") {
  CHECK(contains(fault_of("setp.lt.u32 %p1, %t, 16; @%p1 bra L; bar.sync 0; L: ret;"), "barrier"));
  CHECK(fault_of("setp.lt.u32 %p1, %t, 16;\n@%p1 shfl.sync.bfly.b32 %r1, %r2, 1, 31, -1;") != "");
}

TEST_CASE("asynchronous copies, whole and zero-filled") {
  const std::vector<u32> in = numbers(64);
  for (const bool at_wait : {false, true}) {
    emu::Options options;
    options.copy_at_wait = at_wait;
    const emu::ScopedOptions scope(options);
    const auto got = run<u32>(
        ".shared .align 16 .b8 tile[256];\n"
        "mul.wide.u32 %rd1, %t, 16; add.s64 %rd2, %rd1, %in; mov.u32 %r1, tile;\n"
        "shl.b32 %r2, %t, 4; add.s32 %r1, %r1, %r2; setp.lt.u32 %p1, %t, 12;\n"
        "selp.b32 %r3, 16, 0, %p1; cp.async.cg.shared.global [%r1], [%rd2], 16, %r3;\n"
        "cp.async.commit_group; cp.async.wait_group 0; bar.sync 0;\n"
        "mov.u32 %r4, tile; sub.s32 %r5, 240, %r2; add.s32 %r4, %r4, %r5;\n"
        "ld.shared.v4.u32 {%r6, %r7, %r8, %r9}, [%r4]; add.s64 %rd3, %rd1, %out;\n"
        "st.global.v4.u32 [%rd3], {%r6, %r7, %r8, %r9};",
        in, 64, 16);
    for (std::size_t t = 0; t < 16; ++t) {
      for (std::size_t i = 0; i < 4; ++i) {
        const std::size_t from = 15 - t;
        CHECK(got[4 * t + i] == (from < 12 ? in[4 * from + i] : 0));
      }
    }
  }
  CHECK(contains(fault_of(".shared .align 16 .b8 tile[256]; mov.u32 %r1, tile;\n"
                          "cp.async.cg.shared.global [%r1+8], [%in], 16;"),
                 "misaligned"));
}

TEST_CASE("matrix instructions by the layout of the PTX manual") {
  // Matrix i's row r starts at 16 bytes times (8 i + r); elements are numbered, so each register
  // says where it came from.
  std::vector<std::uint16_t> tiles(256);
  for (std::size_t i = 0; i < tiles.size(); ++i) tiles[i] = static_cast<std::uint16_t>(i);
  for (const bool transposed : {false, true}) {
    const auto got = run<u32>(
        ".shared .align 16 .b8 tile[512];\n"
        "mul.wide.u32 %rd1, %t, 16; add.s64 %rd2, %rd1, %in; mov.u32 %r1, tile;\n"
        "shl.b32 %r2, %t, 4; add.s32 %r1, %r1, %r2; ld.global.v4.u32 {%r3, %r4, %r5, %r6}, "
        "[%rd2];\n"
        "st.shared.v4.u32 [%r1], {%r3, %r4, %r5, %r6}; bar.sync 0;\n"
        "ldmatrix.sync.aligned.m8n8.x4" +
            std::string(transposed ? ".trans" : "") +
            ".shared.b16 {%r7, %r8, %r9, %r10}, [%r1]; add.s64 %rd3, %rd1, %out;\n"
            "st.global.v4.u32 [%rd3], {%r7, %r8, %r9, %r10};",
        tiles, 128, 32);
    for (u32 lane = 0; lane < 32; ++lane) {
      for (u32 matrix = 0; matrix < 4; ++matrix) {
        const u32 row = lane / 4;
        const u32 column = 2 * (lane % 4);
        const u32 low = 64 * matrix + (transposed ? 8 * column + row : 8 * row + column);
        const u32 high = 64 * matrix + (transposed ? 8 * (column + 1) + row : 8 * row + column + 1);
        CHECK(got[4 * lane + matrix] == (high << 16 | low));
      }
    }
  }
  // a (16, 16), b (16, 8), c (16, 8): small whole numbers, so the product is exact.
  std::mt19937 random(9);
  std::vector<float> a(256), b(128), c(128);
  for (float& x : a) x = static_cast<float>(random() % 17) - 8;
  for (float& x : b) x = static_cast<float>(random() % 17) - 8;
  for (float& x : c) x = static_cast<float>(random() % 17) - 8;
  for (const std::string type : {"bf16", "f16"}) {
    const auto bits = [&](float x) -> u32 {
      return type == "bf16" ? terse::to_bf16(x).bits : terse::to_f16(x).bits;
    };
    // 12 words a lane: a (4), b (2), c (4), two of padding.
    std::vector<u32> in(32 * 12);
    for (u32 lane = 0; lane < 32; ++lane) {
      const u32 g = lane / 4;
      const u32 t = lane % 4;
      for (u32 i = 0; i < 8; ++i) {  // a_i at row g (+8 for i in 2,3,6,7), column 2t + (i & 1) (+8)
        const u32 row = (i & 2) != 0 ? g + 8 : g;
        const u32 column = 2 * t + (i & 1) + (i >= 4 ? 8 : 0);
        in[12 * lane + i / 2] |= bits(a[16 * row + column]) << (16 * (i & 1));
      }
      for (u32 i = 0; i < 4; ++i) {  // b_i at row 2t + (i & 1) (+8 for i >= 2), column g
        const u32 row = 2 * t + (i & 1) + (i >= 2 ? 8 : 0);
        in[12 * lane + 4 + i / 2] |= bits(b[8 * row + g]) << (16 * (i & 1));
      }
      for (u32 i = 0; i < 4; ++i) {  // c_i at row g (+8 for i >= 2), column 2t + (i & 1)
        const u32 row = i >= 2 ? g + 8 : g;
        in[12 * lane + 6 + i] = std::bit_cast<u32>(c[8 * row + 2 * t + (i & 1)]);
      }
    }
    const auto got = run<float>(
        "mul.wide.u32 %rd1, %t, 48; add.s64 %rd2, %rd1, %in;\n"
        "ld.global.v4.u32 {%r1, %r2, %r3, %r4}, [%rd2]; ld.global.v2.u32 {%r5, %r6}, [%rd2+16];\n"
        "ld.global.v2.f32 {%f1, %f2}, [%rd2+24]; ld.global.v2.f32 {%f3, %f4}, [%rd2+32];\n"
        "mma.sync.aligned.m16n8k16.row.col.f32." +
            type + "." + type +
            ".f32 {%f5, %f6, %f7, %f8}, {%r1, %r2, %r3, %r4}, {%r5, %r6}, {%f1, %f2, %f3, %f4};\n"
            "mul.wide.u32 %rd3, %t, 16; add.s64 %rd3, %rd3, %out;\n"
            "st.global.v4.f32 [%rd3], {%f5, %f6, %f7, %f8};",
        in, 128, 32);
    for (u32 lane = 0; lane < 32; ++lane) {
      for (u32 i = 0; i < 4; ++i) {
        const u32 row = lane / 4 + (i >= 2 ? 8 : 0);
        const u32 column = 2 * (lane % 4) + (i & 1);
        float sum = c[8 * row + column];
        for (u32 k = 0; k < 16; ++k) sum += a[16 * row + k] * b[8 * k + column];
        CHECK(got[4 * lane + i] == sum);
      }
    }
  }
}

TEST_CASE("what is unknown is refused with its line, never skipped") {
  const auto refusal = [](const std::string& body) -> std::string {
    try {
      const terse::ptx::Module module(kernel_text(body));
    } catch (const terse::Error& error) {
      CHECK(error.error_class() == terse::ErrorClass::unsupported);
      return error.what();
    }
    return "";
  };
  CHECK(refusal("add.s32 %r1, %r1, 1;") == "");
  for (const std::string body :
       {"frobnicate.u32 %r1, %r2;",
        "add.s32.sat %r1, %r1, 1;",
        "add.sat.s32 %r1, %r1, 1;",
        "add.f16 %h1, %h2, %h3;",
        "fma.rn.relu.f32 %f1, %f1, %f1, %f1;",
        "mul.s32 %r1, %r1, %r1;",
        "ld.global.v8.u32 %r1, [%in];",
        "ld.weird.u32 %r1, [%in];",
        "add.s32 %r1, %r1;",
        "add.s32 %r1, %r1, %nobody;",
        "mov.u32 5, %r1;",
        "bra NOWHERE;",
        "cvt.f32.s32 %f1;",
        "cvt.rn.satfinite.f32.s32 %f1, %r1;",
        "setp.foo.s32 %p1, %r1, %r2;",
        "setp.equ.s32 %p1, %r1, %r2;",
        "bar.sync 1;",
        "bar.sync 0, 64;",
        "activemask.b32 %r1;",
        "shfl.bfly.b32 %r1, %r2, 1, 31;",
        "st.const.u32 [%in], %r1;",
        "call f;",
        "mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32 {%f5}, {%r1}, {%r5}, {%f1};",
        "ldmatrix.sync.aligned.m8n8.x3.shared.b16 {%r1}, [%r2];",
        "cp.async.bulk [%r1], [%in], 16;",
        "wgmma.fence.sync.aligned;",
        "atom.global.add.f16 %h1, [%in], %h2;",
        "atom.global.inc.u32 %r1, [%in], %r2;",
        "min.xorsign.abs.f32 %f1, %f2, %f3;",
        "testp.odd.f32 %p1, %f1;",
        "mov.b64 %rd1, {%r1, %r2, %r3};"}) {
    CAPTURE(body);
    const std::string text = refusal(body);
    CHECK(contains(text, "PTX line "));
  }
  CHECK(terse_test::error_class_of([] { terse::ptx::Module("import x;"); }) == "unsupported");
  CHECK(terse_test::error_class_of([] { terse::ptx::Module(".visible .func f() { ret; }"); }) ==
        "unsupported");
}
