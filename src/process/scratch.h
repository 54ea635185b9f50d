// Memory for work that must not allocate from the heap.
#pragma once

#include <cstddef>

#include "base/bits.h"
#include "base/units.h"
#include "os/os.h"

namespace nh {

// An array in a mapping of its own, given back when it goes. T needs no destructor.
template <typename T>
class Scratch {
 public:
  Scratch() = default;
  ~Scratch() {
    if (data_ != nullptr) linux_os().unmap(data_, bytes_);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  bool make(std::size_t capacity) {
    bytes_ = align_up(capacity * sizeof(T) + 1, kOsPageSize);
    data_ = static_cast<T*>(linux_os().reserve(bytes_, kOsPageSize));
    if (data_ == nullptr || linux_os().make_writable(data_, bytes_) != 0) return false;
    capacity_ = capacity;
    return true;
  }
  std::size_t bytes() const { return data_ == nullptr ? 0 : bytes_; }
  // False: it is full.
  bool add(const T& value) {
    if (size_ == capacity_) return false;
    data_[size_++] = value;
    return true;
  }
  // The next one, zero in a new array.
  bool add() {
    if (size_ == capacity_) return false;
    size_++;
    return true;
  }
  T take_last() { return data_[--size_]; }
  std::size_t size() const { return size_; }
  std::size_t capacity() const { return capacity_; }
  T* begin() { return data_; }
  T* end() { return data_ + size_; }
  const T* begin() const { return data_; }
  const T* end() const { return data_ + size_; }
  T& operator[](std::size_t i) { return data_[i]; }

 private:
  T* data_ = nullptr;
  std::size_t bytes_ = 0;
  std::size_t capacity_ = 0;
  std::size_t size_ = 0;
};

}  // namespace nh
