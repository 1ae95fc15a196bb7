// Error and check(): the only way this library fails. It never prints, exits or aborts.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <new>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>

namespace terse {

// What kind of fault an Error reports. The names are stable: scripts read them from the command's
// messages, and the command derives its exit code from them.
enum class ErrorClass : std::uint8_t {
  io,              // the operating system refused to open, read, map or write
  truncated,       // a file or message ends before what it announces
  limit,           // a documented limit is exceeded
  json,            // not well-formed JSON
  utf8,            // not well-formed UTF-8
  schema,          // well-formed, but a value is of the wrong kind for its place
  type,            // a config field has the wrong JSON type
  missing,         // a required field is absent
  range,           // a value outside the range it may have
  dtype,           // an unknown or unusable element type
  shape,           // a malformed shape
  overflow,        // a product of sizes that does not fit
  offsets,         // a tensor's byte range contradicts its shape or itself
  coverage,        // holes, overlaps or bytes left over in a tensor file
  duplicate,       // a name given twice
  path,            // a file name that leaves the model folder
  missing_tensor,  // a tensor the model needs is absent
  shape_mismatch,  // a tensor's shape differs from what the config says
  unsupported,     // well-formed and understood, but not implemented
  protobuf,        // not a well-formed protobuf message
  tokenizer,       // a tokenizer definition that contradicts itself
  nonfinite,       // NaN or infinity where a number is needed
  busy,            // a queue is full
  cancelled,       // the caller asked to stop
  memory,          // memory could not be had
  device,          // an accelerator failed or is absent
};

inline constexpr std::array<const char*, 26> kErrorClassNames = {
    "io",          "truncated", "limit",     "json",      "utf8",           "schema",
    "type",        "missing",   "range",     "dtype",     "shape",          "overflow",
    "offsets",     "coverage",  "duplicate", "path",      "missing_tensor", "shape_mismatch",
    "unsupported", "protobuf",  "tokenizer", "nonfinite", "busy",           "cancelled",
    "memory",      "device"};

// The stable name of a class, as in the first word of Error::what().
constexpr const char* error_class_name(ErrorClass error_class) {
  return kErrorClassNames[static_cast<std::size_t>(error_class)];
}

// Foreign text made safe for a one-line message: quoted, control characters and invalid UTF-8 bytes
// escaped, shortened to about max_bytes with an ellipsis.
inline std::string quote(std::string_view text, std::size_t max_bytes = 80) {
  static constexpr char kHex[] = "0123456789abcdef";
  std::string out = "\"";
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (out.size() >= max_bytes) return out + "\"...";
    const auto byte = static_cast<unsigned char>(text[i]);
    if (byte == '"' || byte == '\\') {
      out += '\\';
      out += static_cast<char>(byte);
    } else if (byte >= 0x20 && byte < 0x7f) {
      out += static_cast<char>(byte);
    } else {
      out += "\\x";
      out += kHex[byte >> 4];
      out += kHex[byte & 15];
    }
  }
  return out + "\"";
}

// The one exception type of the library. what() is a single line of at most 500 bytes,
// "<class>: <message>", and the message says which file, tensor or key, what was found and what was
// expected.
class Error : public std::runtime_error {
 public:
  Error(ErrorClass error_class, const std::string& message)
      : std::runtime_error(one_line(error_class, message)), error_class_(error_class) {}

  ErrorClass error_class() const noexcept { return error_class_; }

  // The text after "<class>: ".
  std::string_view message() const noexcept {
    const std::string_view text = what();
    return text.substr(std::string_view(error_class_name(error_class_)).size() + 2);
  }

 private:
  static constexpr std::size_t kMaxBytes = 500;

  static std::string one_line(ErrorClass error_class, const std::string& message) {
    std::string text = std::string(error_class_name(error_class)) + ": " + message;
    for (char& c : text) {
      if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = ' ';
    }
    if (text.size() > kMaxBytes) {
      std::size_t end = kMaxBytes - 3;
      // Never cut inside a UTF-8 sequence.
      while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80) --end;
      text.resize(end);
      text += "...";
    }
    return text;
  }

  ErrorClass error_class_;
};

namespace detail {

inline void append(std::string& out, std::string_view text) { out += text; }
inline void append(std::string& out, char c) { out += c; }
template <class T>
requires std::is_arithmetic_v<T>
void append(std::string& out, T value) { out += std::to_string(value); }

}  // namespace detail

// Throws Error with the parts (text and numbers) joined into its message.
template <class... Parts>
[[noreturn]] void fail(ErrorClass error_class, const Parts&... parts) {
  std::string message;
  (detail::append(message, parts), ...);
  throw Error(error_class, message);
}

// fail(...) unless ok. The parts are only joined when it fails.
template <class... Parts>
void check(bool ok, ErrorClass error_class, const Parts&... parts) {
  if (!ok) [[unlikely]]
    fail(error_class, parts...);
}

// call(), with memory that the standard library could not have reported as Error(memory) like
// everything else. For the entry points of this library.
template <class Call>
decltype(auto) with_memory_errors(Call&& call) {
  try {
    return call();
  } catch (const std::bad_alloc&) {
    fail(ErrorClass::memory, "out of memory");
  } catch (const std::length_error&) {
    fail(ErrorClass::memory, "a container would exceed the address space");
  }
}

}  // namespace terse
