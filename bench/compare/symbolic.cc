// Symbolic computation: many small objects with short lives, in several passes over the same structure.
#include <array>
#include <map>
#include <memory>

#include "compare/blocks.h"
#include "compare/rows.h"

namespace bench {
namespace {

// --- Expressions ----------------------------------------------------------------------------------------------------

struct Expression;
using Term = std::shared_ptr<const Expression>;

// A constant, the variable x, or an operation on two operands.
struct Expression {
  enum class Kind { constant, variable, sum, product };
  Kind kind;
  std::int64_t value;
  Term left, right;
};

using Kind = Expression::Kind;

Term make(Kind kind, std::int64_t value, Term left = nullptr, Term right = nullptr) {
  return std::make_shared<const Expression>(Expression{kind, value, std::move(left), std::move(right)});
}

Term random_expression(Random& random, int depth) {
  if (depth == 0) {
    if (random.below(3) == 0) return make(Kind::variable, 0);
    return make(Kind::constant, static_cast<std::int64_t>(random.below(5)));
  }
  const Kind kind = random.below(2) == 0 ? Kind::sum : Kind::product;
  Term left = random_expression(random, depth - 1);
  return make(kind, 0, std::move(left), random_expression(random, depth - 1));
}

Term derivative(const Term& e) {
  switch (e->kind) {
    case Kind::constant: return make(Kind::constant, 0);
    case Kind::variable: return make(Kind::constant, 1);
    case Kind::sum: return make(Kind::sum, 0, derivative(e->left), derivative(e->right));
    case Kind::product: break;
  }
  return make(Kind::sum, 0, make(Kind::product, 0, derivative(e->left), e->right),
              make(Kind::product, 0, e->left, derivative(e->right)));
}

bool is_constant(const Term& e, std::int64_t value) { return e->kind == Kind::constant && e->value == value; }

// Arithmetic wraps around: only equality of results matters here.
std::int64_t wrapped(std::uint64_t value) { return static_cast<std::int64_t>(value & 0xffffffff); }

// Builds the expression anew without what can be computed or left out.
Term simplified(const Term& e) {
  if (e->kind == Kind::constant || e->kind == Kind::variable) return make(e->kind, e->value);
  Term left = simplified(e->left);
  Term right = simplified(e->right);
  const bool sum = e->kind == Kind::sum;
  if (left->kind == Kind::constant && right->kind == Kind::constant) {
    const auto a = static_cast<std::uint64_t>(left->value), b = static_cast<std::uint64_t>(right->value);
    return make(Kind::constant, wrapped(sum ? a + b : a * b));
  }
  if (!sum && (is_constant(left, 0) || is_constant(right, 0))) return make(Kind::constant, 0);
  if (is_constant(left, sum ? 0 : 1)) return right;
  if (is_constant(right, sum ? 0 : 1)) return left;
  return make(e->kind, 0, std::move(left), std::move(right));
}

std::uint64_t evaluated(const Term& e, std::uint64_t x) {
  switch (e->kind) {
    case Kind::constant: return static_cast<std::uint64_t>(e->value);
    case Kind::variable: return x;
    case Kind::sum: return (evaluated(e->left, x) + evaluated(e->right, x)) & 0xffffffff;
    case Kind::product: break;
  }
  return (evaluated(e->left, x) * evaluated(e->right, x)) & 0xffffffff;
}

// Random expressions, each derived twice, simplified in between.
Result expressions(const Run& run) {
  const std::size_t count = run.scaled(120);
  Checksum sum;
  const double ns = median_ns(3, [&] {
    Random random(19);
    for (std::size_t i = 0; i < count; i++) {
      Term e = random_expression(random, 9);
      for (int pass = 0; pass < 2; pass++) e = simplified(derivative(simplified(e)));
      sum.add(evaluated(e, i));
    }
  });
  return {ns / 1e6, sum.text()};
}

// --- Polynomials ----------------------------------------------------------------------------------------------------

// A sparse polynomial in three variables: exponents to coefficient.
using Exponents = std::array<std::uint16_t, 3>;
using Polynomial = std::map<Exponents, std::uint64_t>;
constexpr std::uint64_t kModulus = 1'000'003;

Polynomial product(const Polynomial& a, const Polynomial& b) {
  Polynomial out;
  for (const auto& [e, c] : a) {
    for (const auto& [f, d] : b) {
      Exponents sum;
      for (std::size_t i = 0; i < sum.size(); i++) sum[i] = static_cast<std::uint16_t>(e[i] + f[i]);
      std::uint64_t& coefficient = out[sum];
      coefficient = (coefficient + c * d) % kModulus;
    }
  }
  return out;
}

// Powers of (1 + x + 2y + 3z + xyz), each from the one before, then their sum.
Result polynomials(const Run& run) {
  const std::size_t repeats = run.scaled(48);
  const Polynomial base = {{{0, 0, 0}, 1}, {{1, 0, 0}, 1}, {{0, 1, 0}, 2}, {{0, 0, 1}, 3}, {{1, 1, 1}, 1}};
  Checksum sum;
  const double ns = median_ns(3, [&] {
    for (std::size_t i = 0; i < repeats; i++) {
      Polynomial power = base;
      Polynomial total;
      for (int exponent = 2; exponent <= 14; exponent++) {
        power = product(power, base);
        for (const auto& [e, c] : power) total[e] += c;
      }
      for (const auto& [e, c] : total) sum.add(c * 31 + e[0]);
    }
  });
  return {ns / 1e6, sum.text()};
}

}  // namespace

void add_symbolic(Table& table) {
  table.push_back({"symbolic/expressions", "ms", "random expressions derived and simplified, twice, by shared pointers",
                   expressions});
  table.push_back({"symbolic/polynomials", "ms", "powers of a sparse polynomial in a map of its terms", polynomials});
}

}  // namespace bench
