#include <doctest/doctest.h>

#include <set>
#include <string>

#include "terse/error.h"

using terse::Error;
using terse::ErrorClass;

TEST_CASE("what() is the class, a colon and the message") {
  const Error error(ErrorClass::shape_mismatch, "a.weight: shape (2), expected (3)");
  CHECK(std::string(error.what()) == "shape_mismatch: a.weight: shape (2), expected (3)");
  CHECK(error.error_class() == ErrorClass::shape_mismatch);
  CHECK(error.message() == "a.weight: shape (2), expected (3)");
}

TEST_CASE("the names of the classes are distinct and end with device") {
  std::set<std::string> names;
  for (const char* name : terse::kErrorClassNames) names.insert(name);
  CHECK(names.size() == terse::kErrorClassNames.size());
  CHECK(std::string(terse::error_class_name(ErrorClass::io)) == "io");
  CHECK(std::string(terse::error_class_name(ErrorClass::device)) == "device");
}

TEST_CASE("fail joins texts and numbers, check only fails when it must") {
  CHECK_NOTHROW(terse::check(true, ErrorClass::range, "never"));
  try {
    terse::check(false, ErrorClass::range, "layers: ", -3, ", expected ", 1U, std::string(" to "),
                 12UL, '.');
    FAIL("did not throw");
  } catch (const Error& error) {
    CHECK(error.message() == "layers: -3, expected 1 to 12.");
  }
}

TEST_CASE("messages are one line of at most 500 bytes, cut between characters") {
  const Error controls(ErrorClass::json, "a\nb\r\tc\x7f" + std::string(1, '\0') + "d");
  CHECK(controls.message() == "a b  c  d");
  for (std::size_t lead = 0; lead < 4; ++lead) {
    std::string text(lead, 'x');
    for (int i = 0; i < 400; ++i) text += "\u4e2d";
    const Error error(ErrorClass::json, text);
    const std::string what = error.what();
    CHECK(what.size() <= 500);
    CHECK(what.size() >= 497);
    CHECK(what.ends_with("..."));
    // The character before the dots is complete.
    CHECK(what.substr(what.size() - 6, 3) == "\u4e2d");
  }
  CHECK(std::string(Error(ErrorClass::io, std::string(496, 'y')).what()).size() == 500);
}

TEST_CASE("foreign text is quoted, escaped and shortened") {
  CHECK(terse::quote("plain text") == "\"plain text\"");
  CHECK(terse::quote("") == "\"\"");
  CHECK(terse::quote("a\"b\\c") == "\"a\\\"b\\\\c\"");
  CHECK(terse::quote(std::string("\0\n\x7f\xff", 4)) == "\"\\x00\\x0a\\x7f\\xff\"");
  const std::string shortened = terse::quote(std::string(30000, 'x'));
  CHECK(shortened.size() < 100);
  CHECK(shortened.ends_with("\"..."));
  CHECK(terse::quote("abcdef", 4) == "\"abc\"...");
}

TEST_CASE("memory that could not be had is an error like the others") {
  const auto class_of = [](auto call) {
    try {
      terse::with_memory_errors(call);
    } catch (const Error& error) {
      return error.error_class();
    }
    return ErrorClass::device;
  };
  CHECK(class_of([] { throw std::bad_alloc(); }) == ErrorClass::memory);
  CHECK(class_of([] { throw std::length_error("vector"); }) == ErrorClass::memory);
  CHECK(class_of([] { terse::fail(ErrorClass::io, "x"); }) == ErrorClass::io);
  CHECK(terse::with_memory_errors([] { return 7; }) == 7);
}
