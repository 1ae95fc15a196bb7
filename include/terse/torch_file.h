// Tensors out of the small files that torch.save wrote (sparse_linear.pt, colbert_linear.pt): a zip
// archive, of which data.pkl is a pickle that lists the tensors and data/<key> holds the values. A
// pickle is a program; this reader runs none. It knows the few opcodes that describe a dictionary
// of tensors, two callables by name, and refuses everything else.
//
// Sources: Python Lib/pickletools.py (opcodes); pytorch/pytorch torch/serialization.py (layout) and
// torch/_utils.py (_rebuild_tensor_v2).
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "terse/checked.h"
#include "terse/dtype.h"
#include "terse/error.h"
#include "terse/file.h"
#include "terse/safetensors.h"
#include "terse/tensor.h"
#include "terse/zip.h"

namespace terse {

namespace detail {

// Reads the pickle of a dictionary of tensors. Values live in one array and refer to each other by
// index, so that nothing recurses; every opcode adds at most one, so that memory is linear.
class TensorPickle {
 public:
  // Throws Error: unsupported (an opcode or callable that is not known here), truncated, schema
  // (the pieces do not fit together), offsets (a tensor outside its storage), shape, overflow,
  // limit.
  TensorPickle(const ZipArchive& archive, std::string_view folder, std::string_view pickle,
               const std::string& source)
      : archive_(archive), folder_(folder), source_(source), reader_(pickle, source) {
    constexpr std::size_t kMaxPickleBytes = std::size_t{1} << 20;
    check(pickle.size() <= kMaxPickleBytes, ErrorClass::limit, source_, ": pickle of ",
          pickle.size(), " bytes, at most ", kMaxPickleBytes, " are read");
  }

  // The tensors in order of the dictionary.
  std::vector<NamedTensor> read() {
    while (step()) continue;
    require(reader_.rest() == 0 && stack_.size() == 1 && marks_.empty(),
            "the end of the pickle after STOP");
    const std::uint32_t root = pop(Kind::dictionary, "a dictionary of tensors");
    std::vector<NamedTensor> tensors;
    for (std::size_t i = 0; i < values_[root].items.size(); i += 2) {
      const Value& key = value(values_[root].items[i], Kind::text, "a text as tensor name");
      const Value& tensor = value(values_[root].items[i + 1], Kind::tensor, "a tensor");
      tensors.push_back({std::string(key.text), tensor.view});
    }
    return tensors;
  }

 private:
  enum class Kind : std::uint8_t {
    none,
    boolean,
    integer,
    text,
    global,
    tuple,
    dictionary,
    storage,
    tensor
  };
  struct Value {
    Kind kind = Kind::none;
    std::int64_t integer = 0;
    std::string_view text = {};             // of a text; "module name" of a global
    std::vector<std::uint32_t> items = {};  // of a tuple; keys and values of a dictionary in turn
    TensorView view = {};                   // of a tensor; of a storage, with one dimension
  };

  void require(bool ok, std::string_view expected) const {
    check(ok, ErrorClass::schema, source_, ": malformed pickle before byte ", reader_.position(),
          ", expected ", expected);
  }
  const Value& value(std::uint32_t index, Kind kind, std::string_view expected) const {
    require(values_[index].kind == kind, expected);
    return values_[index];
  }
  void push(Value value) {
    stack_.push_back(static_cast<std::uint32_t>(values_.size()));
    values_.push_back(std::move(value));
  }
  void push_integer(std::int64_t integer) { push({.kind = Kind::integer, .integer = integer}); }
  std::uint32_t pop(Kind kind, std::string_view expected) {
    require(stack_.size() > floor(), expected);
    const std::uint32_t index = stack_.back();
    value(index, kind, expected);
    stack_.pop_back();
    return index;
  }
  // Values below the last mark are out of reach.
  std::size_t floor() const { return marks_.empty() ? 0 : marks_.back(); }

  // Takes the last count values off the stack.
  std::vector<std::uint32_t> pop_items(std::size_t count) {
    require(stack_.size() - floor() >= count, "more values on the stack");
    const auto begin = stack_.end() - static_cast<std::ptrdiff_t>(count);
    std::vector<std::uint32_t> items(begin, stack_.end());
    stack_.erase(begin, stack_.end());
    return items;
  }
  std::vector<std::uint32_t> pop_to_mark() {
    require(!marks_.empty(), "a mark on the stack");
    auto items = pop_items(stack_.size() - marks_.back());
    marks_.pop_back();
    return items;
  }
  void push_tuple(std::vector<std::uint32_t> items) {
    push({.kind = Kind::tuple, .items = std::move(items)});
  }

  // Does one opcode; false after STOP.
  bool step() {
    const auto opcode = reader_.read<std::uint8_t>();
    switch (opcode) {
      case 0x80:  // PROTO
        check(reader_.read<std::uint8_t>() == 2, ErrorClass::unsupported, source_,
              ": pickle protocol other than 2");
        return true;
      case '.':  // STOP
        return false;
      case '(':  // MARK
        marks_.push_back(stack_.size());
        return true;
      case 'N':  // NONE
        push({});
        return true;
      case 0x88:  // NEWTRUE
      case 0x89:  // NEWFALSE
        push({.kind = Kind::boolean});
        return true;
      case 'X':  // BINUNICODE
        push({.kind = Kind::text, .text = reader_.take(reader_.read<std::uint32_t>())});
        return true;
      case '}':  // EMPTY_DICT
        push({.kind = Kind::dictionary});
        return true;
      case 'c':  // GLOBAL
        push_global();
        return true;
      case 'Q':  // BINPERSID
        push_storage();
        return true;
      case 'R':  // REDUCE
        reduce();
        return true;
      case 'b':  // BUILD: attributes of the dictionary (torch's _metadata), not needed
        pop(Kind::dictionary, "attributes");
        require(stack_.size() > floor(), "an object to build");
        value(stack_.back(), Kind::dictionary, "a dictionary to build");
        return true;
      default:
        if (step_integer(opcode) || step_memo(opcode) || step_container(opcode)) return true;
        fail(ErrorClass::unsupported, source_, ": pickle opcode ", int{opcode},
             " is not one that describes tensors; nothing was executed");
    }
  }

  bool step_integer(std::uint8_t opcode) {
    switch (opcode) {
      case 'K':  // BININT1
        push_integer(reader_.read<std::uint8_t>());
        return true;
      case 'M':  // BININT2
        push_integer(reader_.read<std::uint16_t>());
        return true;
      case 'J':  // BININT
        push_integer(reader_.read<std::int32_t>());
        return true;
      case 0x8a: {  // LONG1: two's complement of as many bytes as its first byte says
        const std::string_view bytes = reader_.take(reader_.read<std::uint8_t>());
        check(bytes.size() <= 8, ErrorClass::overflow, source_, ": a number of ", bytes.size(),
              " bytes in the pickle");
        const bool negative = !bytes.empty() && (bytes.back() & 0x80) != 0;
        std::int64_t integer = negative ? -1 : 0;
        std::memcpy(&integer, bytes.data(), bytes.size());
        push_integer(integer);
        return true;
      }
      default:
        return false;
    }
  }

  bool step_memo(std::uint8_t opcode) {
    switch (opcode) {
      case 'q':  // BINPUT
      case 'r':  // LONG_BINPUT
        require(stack_.size() > floor(), "a value to remember");
        memo_[read_memo_key(opcode == 'r')] = stack_.back();
        return true;
      case 'h':    // BINGET
      case 'j': {  // LONG_BINGET
        const auto found = memo_.find(read_memo_key(opcode == 'j'));
        require(found != memo_.end(), "a value that was remembered");
        stack_.push_back(found->second);
        return true;
      }
      default:
        return false;
    }
  }
  std::uint32_t read_memo_key(bool wide) {
    return wide ? reader_.read<std::uint32_t>() : reader_.read<std::uint8_t>();
  }

  bool step_container(std::uint8_t opcode) {
    switch (opcode) {
      case ')':  // EMPTY_TUPLE
        push_tuple({});
        return true;
      case 0x85:  // TUPLE1
      case 0x86:  // TUPLE2
      case 0x87:  // TUPLE3
        push_tuple(pop_items(opcode - 0x84U));
        return true;
      case 't':  // TUPLE
        push_tuple(pop_to_mark());
        return true;
      case 's':  // SETITEM
        set_items(pop_items(2));
        return true;
      case 'u':  // SETITEMS
        set_items(pop_to_mark());
        return true;
      default:
        return false;
    }
  }
  void set_items(const std::vector<std::uint32_t>& items) {
    require(items.size() % 2 == 0 && stack_.size() > floor(), "keys, values and a dictionary");
    value(stack_.back(), Kind::dictionary, "a dictionary");
    auto& stored = values_[stack_.back()].items;
    stored.insert(stored.end(), items.begin(), items.end());
  }

  // The callables and storage types that may be named; nothing is imported.
  void push_global() {
    const std::string_view module = reader_.take_line();
    const std::string_view name = reader_.take_line();
    const bool known = (module == "collections" && name == "OrderedDict") ||
                       (module == "torch._utils" && name == "_rebuild_tensor_v2") ||
                       (module == "torch" && storage_dtype(name).has_value());
    if (!known) {
      fail(ErrorClass::unsupported, source_, ": the pickle names ", quote(module), ".", quote(name),
           ", which is not executed here");
    }
    push({.kind = Kind::global, .text = name});
  }
  static std::optional<DType> storage_dtype(std::string_view name) {
    if (name == "FloatStorage") return DType::f32;
    if (name == "HalfStorage") return DType::f16;
    if (name == "BFloat16Storage") return DType::bf16;
    if (name == "DoubleStorage") return DType::f64;
    return std::nullopt;
  }

  // A persistent id is ("storage", type, key, device, number of elements): the entry data/<key>.
  void push_storage() {
    constexpr std::string_view kExpected = "a storage description";
    const auto& items = values_[pop(Kind::tuple, kExpected)].items;
    require(items.size() == 5, kExpected);
    require(value(items[0], Kind::text, kExpected).text == "storage", kExpected);
    const auto dtype = storage_dtype(value(items[1], Kind::global, kExpected).text);
    require(dtype.has_value(), "a storage type");
    const std::string_view key = value(items[2], Kind::text, kExpected).text;
    value(items[3], Kind::text, kExpected);
    const std::int64_t count = value(items[4], Kind::integer, kExpected).integer;
    const std::string_view data =
        archive_.content(std::string(folder_) + "data/" + std::string(key));
    check(count >= 0 && checked_mul(static_cast<std::uint64_t>(count), dtype_size(*dtype)) ==
                            std::uint64_t{data.size()},
          ErrorClass::offsets, source_, ": storage of ", data.size(), " bytes, expected ", count,
          " of type ", dtype_name(*dtype));
    push({.kind = Kind::storage, .view = {data.data(), *dtype, {count}}});
  }

  void reduce() {
    const std::uint32_t arguments = pop(Kind::tuple, "arguments");
    const std::uint32_t callable = pop(Kind::global, "a callable");
    const std::string_view name = values_[callable].text;
    if (name == "_rebuild_tensor_v2") {
      push({.kind = Kind::tensor, .view = rebuild_tensor(values_[arguments].items)});
    } else {
      require(name == "OrderedDict" && values_[arguments].items.empty(), "OrderedDict()");
      push({.kind = Kind::dictionary});
    }
  }

  // Arguments: storage, offset in elements, size, stride, requires_grad, hooks (unused).
  TensorView rebuild_tensor(const std::vector<std::uint32_t>& arguments) const {
    constexpr std::string_view kExpected = "the arguments of a tensor";
    require(arguments.size() == 6, kExpected);
    const TensorView& storage = value(arguments[0], Kind::storage, kExpected).view;
    const std::int64_t offset = value(arguments[1], Kind::integer, kExpected).integer;
    const auto& sizes = value(arguments[2], Kind::tuple, kExpected).items;
    const auto& strides = value(arguments[3], Kind::tuple, kExpected).items;
    require(sizes.size() == strides.size(), "as many strides as sizes");
    TensorView view{nullptr, storage.dtype, Shape(sizes.size())};
    std::int64_t step = 1;  // elements from one index of this dimension to the next
    for (std::size_t i = sizes.size(); i-- > 0;) {
      const std::int64_t size = value(sizes[i], Kind::integer, kExpected).integer;
      const std::int64_t stride = value(strides[i], Kind::integer, kExpected).integer;
      check(size >= 0, ErrorClass::shape, source_, ": a tensor with a dimension of ", size);
      check(size <= 1 || stride == step, ErrorClass::unsupported, source_,
            ": a tensor that is not contiguous");
      view.shape[i] = size;
      const auto longer = mul_sizes(static_cast<std::uint64_t>(step),
                                    static_cast<std::uint64_t>(std::max<std::int64_t>(size, 1)),
                                    "size of a tensor");
      step = narrow<std::int64_t>(longer, "size of a tensor");
    }
    check(
        offset >= 0 && range_fits(static_cast<std::uint64_t>(offset), view.size(), storage.size()),
        ErrorClass::offsets, source_, ": a tensor reaches outside its storage");
    view.data = static_cast<const std::byte*>(storage.data) +
                static_cast<std::size_t>(offset) * dtype_size(view.dtype);
    return view;
  }

  const ZipArchive& archive_;
  std::string_view folder_;  // of the archive, with its slash
  const std::string& source_;
  ByteReader reader_;
  std::vector<Value> values_;
  std::vector<std::uint32_t> stack_;
  std::vector<std::size_t> marks_;  // heights of the stack
  std::map<std::uint32_t, std::uint32_t> memo_;
};

}  // namespace detail

// A validated file. Safe to share between threads.
class TorchFile {
 public:
  // Whether bytes start as a zip archive does, and so could be such a file.
  static bool recognizes(std::span<const std::byte> bytes) {
    constexpr char kSignature[] = {'P', 'K', 3, 4};
    return bytes.size() >= sizeof(kSignature) &&
           std::memcmp(bytes.data(), kSignature, sizeof(kSignature)) == 0;
  }

  // Throws Error: see detail::ZipArchive and detail::TensorPickle; coverage (tensors that share
  // bytes, more in all than the file has); what MappedFile::open throws.
  static std::shared_ptr<const TorchFile> open(const std::string& path,
                                               FileAccess access = FileAccess::automatic) {
    return with_memory_errors([&] { return open(MappedFile::open(path, access)); });
  }
  static std::shared_ptr<const TorchFile> open(const std::shared_ptr<const MappedFile>& file) {
    return create(file->bytes(), path_text(file->path()), file);
  }

  // The same for bytes that the caller keeps alive; `source` leads the messages.
  static std::shared_ptr<const TorchFile> parse(std::span<const std::byte> bytes,
                                                const std::string& source) {
    return create(bytes, source, nullptr);
  }

  // All tensors, in the order of the dictionary.
  const std::vector<NamedTensor>& entries() const { return entries_; }

 private:
  static std::shared_ptr<const TorchFile> create(std::span<const std::byte> bytes,
                                                 const std::string& source,
                                                 const std::shared_ptr<const MappedFile>& file) {
    return with_memory_errors(
        [&] { return std::shared_ptr<const TorchFile>(new TorchFile(bytes, source, file)); });
  }

  TorchFile(std::span<const std::byte> bytes, const std::string& source,
            std::shared_ptr<const MappedFile> file)
      : file_(std::move(file)) {
    constexpr std::string_view kPickle = "data.pkl";
    const detail::ZipArchive archive({reinterpret_cast<const char*>(bytes.data()), bytes.size()},
                                     source);
    // All entries lie in one folder, which is named after the file when it was saved.
    const auto first = archive.entries().begin();
    const std::size_t slash =
        first == archive.entries().end() ? std::string_view::npos : first->first.find('/');
    check(slash != std::string_view::npos, ErrorClass::schema, source,
          ": not an archive of torch.save");
    const std::string folder(first->first.substr(0, slash + 1));
    const auto order = archive.entries().find(folder + "byteorder");
    check(order == archive.entries().end() || order->second == "little", ErrorClass::unsupported,
          source, ": values that are not little-endian");
    const std::string_view pickle = archive.content(folder + std::string(kPickle));
    entries_ = detail::TensorPickle(archive, folder, pickle, source).read();
    std::uint64_t total_bytes = 0;
    for (const NamedTensor& entry : entries_) {
      total_bytes = add_sizes(total_bytes, entry.view.size_bytes(), "bytes of tensors");
    }
    check(total_bytes <= bytes.size(), ErrorClass::coverage, source, ": tensors of ", total_bytes,
          " bytes in a file of ", bytes.size());
  }

  std::shared_ptr<const MappedFile> file_;
  std::vector<NamedTensor> entries_;
};

}  // namespace terse
