#include "source.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <set>
#include <utility>

#include "terse/error.h"

namespace terse::ptx {
namespace {

struct Token {
  enum class Kind : std::uint8_t { word, number, punctuation, text, end };
  Kind kind = Kind::end;
  std::string_view text;
  int line = 0;
};

bool is_word_character(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
         c == '$' || c == '%' || c == '.';
}

// Words keep their dots (`ld.global.v2.f32`, `.reg`, `%tid.x`) and double colons.
std::vector<Token> tokenize(std::string_view text) {
  std::vector<Token> tokens;
  int line = 1;
  std::size_t at = 0;
  const auto push = [&](Token::Kind kind, std::size_t length) {
    tokens.push_back({kind, text.substr(at, length), line});
    at += length;
  };
  while (at < text.size()) {
    const char c = text[at];
    if (c == '\n') {
      ++line;
      ++at;
    } else if (c == ' ' || c == '\t' || c == '\r') {
      ++at;
    } else if (text.substr(at, 2) == "//") {
      at = std::min(text.find('\n', at), text.size());
    } else if (text.substr(at, 2) == "/*") {
      const std::size_t end = std::min(text.find("*/", at), text.size() - 2) + 2;
      line += static_cast<int>(std::count(text.begin() + static_cast<std::ptrdiff_t>(at),
                                          text.begin() + static_cast<std::ptrdiff_t>(end), '\n'));
      at = end;
    } else if (c == '"') {
      push(Token::Kind::text, std::min(text.find('"', at + 1), text.size() - 1) + 1 - at);
    } else if (is_word_character(c)) {
      std::size_t end = at;
      while (end < text.size() && (is_word_character(text[end]) || text.substr(end, 2) == "::" ||
                                   (text[end] == ':' && end > at && text[end - 1] == ':'))) {
        ++end;
      }
      push(c >= '0' && c <= '9' ? Token::Kind::number : Token::Kind::word, end - at);
    } else {
      push(Token::Kind::punctuation, 1);
    }
  }
  tokens.push_back({Token::Kind::end, "", line});
  return tokens;
}

std::vector<std::string> split(std::string_view text, char separator) {
  std::vector<std::string> parts;
  std::size_t begin = 0;
  while (true) {
    const std::size_t end = text.find(separator, begin);
    parts.emplace_back(text.substr(begin, end - begin));
    if (end == std::string_view::npos) return parts;
    begin = end + 1;
  }
}

// What is skipped to the end of its line or statement: facts about the file that change no result.
const std::set<std::string_view> kIgnoredLines = {".version", ".target", ".address_size", ".file",
                                                  ".loc"};
// Limits of a launch, which the static layer checks against the cubin.
const std::set<std::string_view> kLaunchLimits = {".maxntid", ".minnctapersm", ".maxnreg",
                                                  ".reqntid"};
const std::set<std::string_view> kLinkage = {".visible", ".weak", ".extern"};
const std::set<std::string_view> kSpaces = {".shared", ".local", ".global", ".const", ".param"};

class Parser {
 public:
  explicit Parser(std::string_view text) : tokens_(tokenize(text)) {}

  Source parse() {
    while (peek().kind != Token::Kind::end) top_level();
    return std::move(source_);
  }

 private:
  const Token& peek() const { return tokens_[at_]; }
  const Token& next() {
    const Token& token = tokens_[at_];
    if (token.kind != Token::Kind::end) ++at_;
    return token;
  }
  bool accept(std::string_view text) {
    if (peek().text != text || peek().kind == Token::Kind::end) return false;
    ++at_;
    return true;
  }
  void expect(std::string_view text) {
    if (!accept(text)) {
      refuse(peek().line, "expected " + quote(text) + ", got " + quote(peek().text));
    }
  }
  std::string word() {
    const Token& token = next();
    if (token.kind != Token::Kind::word) {
      refuse(token.line, "expected a name, got " + quote(token.text));
    }
    return std::string(token.text);
  }
  void skip_line() {
    const int line = peek().line;
    while (peek().kind != Token::Kind::end && peek().line == line) ++at_;
  }

  std::uint64_t integer() {
    const bool negative = accept("-");
    const Token& token = next();
    std::string_view digits = token.text;
    if (token.kind != Token::Kind::number) {
      refuse(token.line, "expected a number, got " + quote(token.text));
    }
    if (digits.ends_with('U')) digits.remove_suffix(1);
    const bool hexadecimal = digits.starts_with("0x") || digits.starts_with("0X");
    if (hexadecimal) digits.remove_prefix(2);
    std::uint64_t value = 0;
    const auto [end, error] =
        std::from_chars(digits.data(), digits.data() + digits.size(), value, hexadecimal ? 16 : 10);
    if (error != std::errc() || end != digits.data() + digits.size()) {
      refuse(token.line, "not a number: " + quote(token.text));
    }
    return negative ? ~value + 1 : value;
  }

  void top_level() {
    const Token& token = peek();
    if (kIgnoredLines.contains(token.text)) {
      skip_line();
    } else if (kLinkage.contains(token.text)) {
      const bool is_extern = token.text == ".extern";
      next();
      if (is_extern && peek().text != ".shared") refuse(token.line, "unknown external symbol");
    } else if (accept(".entry")) {
      entry();
    } else if (kSpaces.contains(token.text)) {
      source_.variables.push_back(variable());
      expect(";");
    } else {
      refuse(token.line, "unknown directive " + quote(token.text));
    }
  }

  // .shared .align 4 .b8 name[16] = {1, 2}
  Variable variable() {
    Variable result;
    result.space = word().substr(1);
    const int line = peek().line;
    std::size_t element = 0;
    std::string type;
    while (peek().text.starts_with('.')) {
      const std::string directive = word();
      if (directive == ".align") {
        result.align = static_cast<std::size_t>(integer());
      } else if (directive == ".ptr" || kSpaces.contains(directive)) {
        // what a pointer parameter points at: a promise to the compiler only
      } else {
        type = directive.substr(1);
        element = type_bytes(type, line);
      }
    }
    if (element == 0) refuse(line, "variable without a type");
    result.align = std::max(result.align, element);
    result.name = word();
    result.bytes = element;
    while (accept("[")) {
      result.bytes *= peek().text == "]" ? 0 : static_cast<std::size_t>(integer());
      expect("]");
    }
    if (accept("=")) initial(element, result);
    return result;
  }

  void initial(std::size_t element, Variable& variable) {
    const bool list = accept("{");
    do {
      const std::uint64_t value = peek().text.starts_with("0f") || peek().text.starts_with("0d")
                                      ? operand().bits
                                      : integer();
      for (std::size_t byte = 0; byte < element; ++byte) {
        variable.initial.push_back(static_cast<std::uint8_t>(value >> (8 * byte)));
      }
    } while (list && accept(","));
    if (list) expect("}");
    if (variable.initial.size() > variable.bytes) refuse(peek().line, "too many initial values");
  }

  void entry() {
    Entry entry;
    entry_ = &entry;
    entry.name = word();
    if (accept("(")) {
      while (!accept(")")) {
        entry.parameters.push_back(variable());
        accept(",");
      }
    }
    while (kLaunchLimits.contains(peek().text)) skip_line();
    expect("{");
    block();
    entry_ = nullptr;
    source_.entries.push_back(std::move(entry));
  }

  // Statements up to the closing brace. Names declared inside are visible only there.
  void block() {
    scopes_.emplace_back();
    while (!accept("}")) {
      const Token& token = peek();
      if (token.kind == Token::Kind::end) refuse(token.line, "unclosed block");
      if (accept("{")) {
        block();
      } else if (accept(".reg")) {
        registers();
      } else if (token.text == ".loc") {
        skip_line();
      } else if (accept(".pragma")) {
        next();  // a hint to the optimiser, such as "nounroll"
        expect(";");
      } else if (kSpaces.contains(token.text)) {
        Variable declared = variable();
        declared.name = declare(declared.name);
        entry_->variables.push_back(std::move(declared));
        expect(";");
      } else if (tokens_[at_ + 1].text == ":") {
        label();
      } else {
        instruction();
      }
    }
    scopes_.pop_back();
  }

  // Gives a name of this scope a spelling of its own in the entry.
  std::string declare(const std::string& name) {
    std::string unique = scopes_.size() == 1 ? name : name + "#" + std::to_string(++num_scoped_);
    scopes_.back()[name] = unique;
    return unique;
  }
  std::string resolve(const std::string& name) const {
    for (std::size_t scope = scopes_.size(); scope-- > 0;) {
      if (const auto found = scopes_[scope].find(name); found != scopes_[scope].end()) {
        return found->second;
      }
    }
    return name;
  }

  // .reg .b32 %r<60>, other;
  void registers() {
    const std::string type = word().substr(1);
    type_bytes(type, peek().line);
    do {
      const std::string name = word();
      if (accept("<")) {
        const std::uint64_t count = integer();
        expect(">");
        for (std::uint64_t index = 0; index < count; ++index) {
          entry_->registers[declare(name + std::to_string(index))] = type;
        }
      } else {
        entry_->registers[declare(name)] = type;
      }
    } while (accept(","));
    expect(";");
  }

  void label() {
    const std::string name = declare(word());
    expect(":");
    if (accept(".branchtargets")) {
      do {
        entry_->branch_targets[name].push_back(resolve(word()));
      } while (accept(","));
      expect(";");
    } else if (!entry_->labels.emplace(name, entry_->body.size()).second) {
      refuse(peek().line, "label given twice: " + quote(name));
    }
  }

  void instruction() {
    Instruction result;
    result.line = peek().line;
    if (accept("@")) {
      result.guard_negated = accept("!");
      result.guard = resolve(word());
    }
    result.modifiers = split(word(), '.');
    result.opcode = result.modifiers.front();
    result.modifiers.erase(result.modifiers.begin());
    while (!accept(";")) {
      if (!result.operands.empty()) expect(",");
      result.operands.push_back(operand());
    }
    entry_->body.push_back(std::move(result));
  }

  Operand operand() {
    Operand first = single_operand();
    if (!accept("|")) return first;
    Operand pair;
    pair.kind = Operand::Kind::pair;
    pair.parts.push_back(std::move(first));
    pair.parts.push_back(single_operand());
    return pair;
  }

  Operand single_operand() {
    Operand result;
    if (accept("{")) {
      result.kind = Operand::Kind::list;
      do {
        result.parts.push_back(single_operand());
      } while (accept(","));
      expect("}");
      return result;
    }
    if (accept("[")) {
      result.kind = Operand::Kind::address;
      result.parts.push_back(single_operand());
      if (accept("+")) result.bits = integer();
      expect("]");
      return result;
    }
    result.negated = accept("!");
    if (peek().kind == Token::Kind::word) {
      result.name = resolve(word());
      return result;
    }
    const std::string_view text = peek().text;
    if (text.starts_with("0f") || text.starts_with("0d")) {
      result.kind = Operand::Kind::real;
      const std::size_t digits = text[1] == 'f' ? 8 : 16;
      const std::string_view hexadecimal = text.substr(2);
      const auto [end, error] = std::from_chars(
          hexadecimal.data(), hexadecimal.data() + hexadecimal.size(), result.bits, 16);
      if (error != std::errc() || hexadecimal.size() != digits ||
          end != hexadecimal.data() + digits) {
        refuse(peek().line, "not a number: " + quote(text));
      }
      next();
      return result;
    }
    result.kind = Operand::Kind::integer;
    result.bits = integer();
    return result;
  }

  std::vector<Token> tokens_;
  std::size_t at_ = 0;
  Source source_;
  Entry* entry_ = nullptr;
  std::vector<std::map<std::string, std::string>> scopes_;
  int num_scoped_ = 0;
};

constexpr std::array<std::pair<std::string_view, std::size_t>, 20> kTypes = {
    {{"b8", 1},   {"u8", 1},  {"s8", 1},  {"b16", 2}, {"u16", 2},    {"s16", 2},   {"f16", 2},
     {"bf16", 2}, {"b32", 4}, {"u32", 4}, {"s32", 4}, {"f32", 4},    {"f16x2", 4}, {"tf32", 4},
     {"b64", 8},  {"u64", 8}, {"s64", 8}, {"f64", 8}, {"bf16x2", 4}, {"pred", 1}}};

}  // namespace

Source parse(std::string_view text) { return Parser(text).parse(); }

std::size_t type_bytes(std::string_view type, int line) {
  for (const auto& [name, bytes] : kTypes) {
    if (name == type) return bytes;
  }
  refuse(line, "unknown type " + quote(type));
}

void refuse(int line, const std::string& what) {
  throw Error(ErrorClass::unsupported, "PTX line " + std::to_string(line) + ": " + what);
}

}  // namespace terse::ptx
