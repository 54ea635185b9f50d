#include "central/central.h"

namespace nh {

Batch Central::fetch(unsigned wanted, CpuId cpu, bool* untouched) {
  const Batch batch = transfer_.take(wanted);
  return batch.count != 0 ? batch : spans_.fetch(wanted, cpu, untouched);
}

unsigned Central::flush(void* head, unsigned count) {
  const unsigned batch = batch_objects(span_class());
  unsigned total = 0;
  // Whole batches go to the transfer cache, cut off the chain outside its lock.
  while (count >= batch && head != nullptr && transfer_.has_room()) {
    void* last = head;
    unsigned n = 1;
    while (n < batch && next_object(last) != nullptr) {
      last = next_object(last);
      n++;
    }
    void* rest = next_object(last);
    next_object(last) = nullptr;
    if (!transfer_.put({head, n})) {
      next_object(last) = rest;
      break;
    }
    head = rest;
    count = count > n ? count - n : 0;
    total += n;
  }
  return head == nullptr ? total : total + spans_.flush(head);
}

void Central::trim() {
  // Other threads may bring more meanwhile, which they want to find again.
  for (std::size_t left = transfer_.objects(); left != 0;) {
    const Batch batch = transfer_.take(batch_objects(span_class()));
    if (batch.count == 0) break;
    spans_.flush(batch.head);
    left = left > batch.count ? left - batch.count : 0;
  }
  spans_.trim();
}

CentralStats Central::stats() {
  const std::size_t waiting = transfer_.objects();
  CentralStats s = spans_.stats();
  s.objects_transfer = waiting;
  // Objects that were on their way between the two looks may make the difference negative.
  s.objects_out = s.objects_out > waiting ? s.objects_out - waiting : 0;
  s.transfer_hits = transfer_.takes();
  s.fetches += transfer_.takes();
  s.flushes += transfer_.puts();
  return s;
}

void Central::repair_after_fork(bool lost) {
  transfer_.repair_after_fork(lost);
  spans_.repair_after_fork(lost);
}

}  // namespace nh
