// A reader of JSON, for the tables in a model's metadata and for receipt.json.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <map>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace athanor {

class Json {
 public:
  enum class Kind { null, boolean, number, text, list, object };

  /// Throws std::runtime_error, with the place, for text that is not JSON.
  static Json parse(const std::string& text) {
    Reader reader{text, 0};
    Json out = reader.value(0);
    reader.space();
    if (reader.at != text.size()) reader.fail("text after its end");
    return out;
  }

  Kind kind() const { return kind_; }
  bool is_null() const { return kind_ == Kind::null; }
  double number() const { return require(Kind::number, "a number"), number_; }
  int integer() const { return static_cast<int>(number()); }
  bool boolean() const { return require(Kind::boolean, "true or false"), number_ != 0; }
  const std::string& text() const { return require(Kind::text, "a text"), text_; }
  const std::vector<Json>& list() const { return require(Kind::list, "a list"), list_; }
  const std::map<std::string, Json>& object() const { return require(Kind::object, "an object"), object_; }
  bool has(const std::string& key) const { return kind_ == Kind::object && object_.count(key) > 0; }
  const Json& operator[](const std::string& key) const {
    const auto found = object().find(key);
    if (found == object_.end()) throw std::runtime_error("JSON: there is no key `" + key + "`");
    return found->second;
  }
  const Json& operator[](std::size_t at) const { return list().at(at); }

 private:
  void require(Kind kind, const char* what) const {
    if (kind_ != kind) throw std::runtime_error(std::string("JSON: a value is not ") + what);
  }

  struct Reader {
    const std::string& text;
    std::size_t at;

    [[noreturn]] void fail(const std::string& why) const {
      throw std::runtime_error("JSON, at byte " + std::to_string(at) + ": " + why);
    }
    void space() {
      while (at < text.size() && (text[at] == ' ' || text[at] == '\n' || text[at] == '\r' || text[at] == '\t')) ++at;
    }
    char next() {
      if (at >= text.size()) fail("it ends too early");
      return text[at++];
    }
    bool take(const char* word) {
      const std::size_t size = std::char_traits<char>::length(word);
      if (text.compare(at, size, word) != 0) return false;
      at += size;
      return true;
    }
    Json value(int depth) {
      if (depth > 100) fail("too many levels");
      space();
      Json out;
      if (take("null")) return out;
      if (take("true")) return out.kind_ = Kind::boolean, out.number_ = 1, out;
      if (take("false")) return out.kind_ = Kind::boolean, out;
      const char first = at < text.size() ? text[at] : '\0';
      if (first == '"') return out.kind_ = Kind::text, out.text_ = string(), out;
      if (first == '[') return list(depth);
      if (first == '{') return object(depth);
      char* end = nullptr;
      out.number_ = std::strtod(text.c_str() + at, &end);
      if (end == text.c_str() + at) fail("this is not a value");
      at = static_cast<std::size_t>(end - text.c_str());
      return out.kind_ = Kind::number, out;
    }
    Json list(int depth) {
      Json out;
      out.kind_ = Kind::list;
      next();
      space();
      if (take("]")) return out;
      while (true) {
        out.list_.push_back(value(depth + 1));
        space();
        const char mark = next();
        if (mark == ']') return out;
        if (mark != ',') fail("a list needs `,` or `]` here");
      }
    }
    Json object(int depth) {
      Json out;
      out.kind_ = Kind::object;
      next();
      space();
      if (take("}")) return out;
      while (true) {
        space();
        if (at >= text.size() || text[at] != '"') fail("a key is needed here");
        std::string key = string();
        space();
        if (next() != ':') fail("`:` is needed here");
        out.object_[std::move(key)] = value(depth + 1);
        space();
        const char mark = next();
        if (mark == '}') return out;
        if (mark != ',') fail("an object needs `,` or `}` here");
      }
    }
    unsigned hex() {
      unsigned code = 0;
      for (int digit = 0; digit < 4; ++digit) {
        const char c = next();
        const int n = c >= '0' && c <= '9'   ? c - '0'
                      : c >= 'a' && c <= 'f' ? c - 'a' + 10
                      : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                             : -1;
        if (n < 0) fail("\\u needs four hexadecimal digits");
        code = code * 16 + static_cast<unsigned>(n);
      }
      return code;
    }
    std::string string() {
      next();
      std::string out;
      while (true) {
        char c = next();
        if (c == '"') return out;
        if (c != '\\') {
          out += c;
          continue;
        }
        c = next();
        const std::string plain = "\"\\/bfnrt", means = "\"\\/\b\f\n\r\t";
        if (const auto found = plain.find(c); found != std::string::npos) {
          out += means[found];
        } else if (c == 'u') {
          unsigned code = hex();
          if (code >= 0xD800 && code < 0xDC00 && take("\\u"))
            code = 0x10000 + ((code - 0xD800) << 10) + (hex() - 0xDC00);
          utf8(out, code);
        } else {
          fail("an unknown escape");
        }
      }
    }
    static void utf8(std::string& out, unsigned code) {
      if (code < 0x80) {
        out += static_cast<char>(code);
        return;
      }
      const int more = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
      const unsigned lead = more == 1 ? 0xC0 : more == 2 ? 0xE0 : 0xF0;
      out += static_cast<char>(lead | (code >> (6 * more)));
      for (int left = more - 1; left >= 0; --left) out += static_cast<char>(0x80 | ((code >> (6 * left)) & 0x3F));
    }
  };

  Kind kind_ = Kind::null;
  double number_ = 0;
  std::string text_;
  std::vector<Json> list_;
  std::map<std::string, Json> object_;
};

}  // namespace athanor
