package main_test

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"time"
)

// An mqttSensor is a device with a persistent session that publishes the
// integers 1, 2, 3 … at QoS 1 and sends again, with DUP, what a lost
// connection left unacknowledged (MQTT 3.1.1, 4.4). Its codec is its own.
type mqttSensor struct {
	addr, id, topic string
	window          int
	pause           time.Duration // between publishes

	mu     sync.Mutex // guards acked and took
	acked  []int
	took   []time.Duration // from first sending to acknowledgement
	flight []mqttPublish   // in order of first sending
	next   int
	packet uint16
}

type mqttPublish struct {
	packet uint16
	value  int
	sent   time.Time
}

// run publishes until stop is closed and then until nothing is in flight,
// connecting again whenever the connection is lost. It gives up at limit.
func (s *mqttSensor) run(stop <-chan struct{}, limit time.Time) error {
	for time.Now().Before(limit) {
		err := s.session(stop, limit)
		if err == nil {
			return nil
		}
		pauseFor(20 * time.Millisecond)
	}
	return fmt.Errorf("sensor %s: %d publishes never acknowledged", s.id, len(s.flight))
}

func (s *mqttSensor) session(stop <-chan struct{}, limit time.Time) error {
	conn, err := net.DialTimeout("tcp", s.addr, time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(limit)
	r := bufio.NewReader(conn)
	if err := s.connect(conn, r); err != nil {
		return err
	}
	for _, p := range s.flight {
		if _, err := conn.Write(s.encode(p, true)); err != nil {
			return err
		}
	}
	for {
		select {
		case <-stop:
			if len(s.flight) == 0 {
				return nil
			}
		default:
			if len(s.flight) < s.window {
				pauseFor(s.pause)
				s.next++
				s.packet = s.packet%65535 + 1
				p := mqttPublish{s.packet, s.next, time.Now()}
				s.flight = append(s.flight, p)
				if _, err := conn.Write(s.encode(p, false)); err != nil {
					return err
				}
				continue
			}
		}
		if err := s.readAck(r); err != nil {
			return err
		}
	}
}

func (s *mqttSensor) connect(conn net.Conn, r *bufio.Reader) error {
	body := append([]byte{0, 4}, "MQTT\x04\x00\x00\x3c"...) // 3.1.1, clean session off, keep alive 60 s
	body = append(body, byte(len(s.id)>>8), byte(len(s.id)))
	body = append(body, s.id...)
	if _, err := conn.Write(append([]byte{0x10, byte(len(body))}, body...)); err != nil {
		return err
	}
	var ack [4]byte
	if _, err := io.ReadFull(r, ack[:]); err != nil {
		return err
	}
	if ack[0] != 0x20 || ack[3] != 0 {
		return fmt.Errorf("connect refused: % x", ack)
	}
	return nil
}

func (s *mqttSensor) encode(p mqttPublish, dup bool) []byte {
	body := append([]byte{byte(len(s.topic) >> 8), byte(len(s.topic))}, s.topic...)
	body = binary.BigEndian.AppendUint16(body, p.packet)
	body = fmt.Appendf(body, "%d", p.value)
	head := byte(0x32)
	if dup {
		head |= 8
	}
	return append([]byte{head, byte(len(body))}, body...)
}

// count returns how many readings have been acknowledged.
func (s *mqttSensor) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.acked)
}

// latencies returns how long the acknowledgements from the given one on took.
func (s *mqttSensor) latencies(from int) []time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.took[from:])
}

// readAck reads one PUBACK, which must be for the oldest publish in flight.
func (s *mqttSensor) readAck(r *bufio.Reader) error {
	var ack [4]byte
	if _, err := io.ReadFull(r, ack[:]); err != nil {
		return err
	}
	if ack[0] != 0x40 {
		return fmt.Errorf("packet % x instead of a PUBACK", ack)
	}
	id := binary.BigEndian.Uint16(ack[2:])
	if id != s.flight[0].packet {
		return fmt.Errorf("PUBACK %d out of order, want %d", id, s.flight[0].packet)
	}
	s.mu.Lock()
	s.acked = append(s.acked, s.flight[0].value)
	s.took = append(s.took, time.Since(s.flight[0].sent))
	s.mu.Unlock()
	s.flight = s.flight[1:]
	return nil
}

// A coapSensor PUTs the integers 1, 2, 3 … as confirmable messages, one at a
// time, and sends each again unchanged until it is answered (RFC 7252, 4.2).
type coapSensor struct {
	addr, device, name string
	pause              time.Duration // between readings
	acked              []int
}

func (s *coapSensor) run(stop <-chan struct{}, limit time.Time) error {
	conn, err := net.Dial("udp", s.addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	mid := uint16(rand.Uint32())
	for value := 1; ; value++ {
		select {
		case <-stop:
			return nil
		default:
		}
		mid++
		if err := exchange(conn, s.encode(mid, value), mid, limit); err != nil {
			return fmt.Errorf("sensor %s, value %d: %w", s.device, value, err)
		}
		s.acked = append(s.acked, value)
		pauseFor(s.pause)
	}
}

func (s *coapSensor) encode(mid uint16, value int) []byte {
	m := []byte{0x42, 0x03, byte(mid >> 8), byte(mid), byte(mid), byte(mid >> 8)} // CON PUT, token of 2
	delta := byte(11)                                                             // Uri-Path
	for _, segment := range []string{"readings", s.device, s.name} {
		m = append(m, delta<<4|byte(len(segment)))
		m = append(m, segment...)
		delta = 0
	}
	m = append(m, 0x10) // Content-Format 0
	m = append(m, 0xff)
	return fmt.Appendf(m, "%d", value)
}

// exchange sends m every 300 ms until its acknowledgement says 2.04.
func exchange(conn net.Conn, m []byte, mid uint16, limit time.Time) error {
	answer := make([]byte, 1500)
	for time.Now().Before(limit) {
		if _, err := conn.Write(m); err != nil {
			pauseFor(20 * time.Millisecond) // nobody listens just now
		}
		conn.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
		for {
			n, err := conn.Read(answer)
			if err != nil {
				if !timedOut(err) {
					pauseFor(20 * time.Millisecond)
				}
				break
			}
			if n < 4 || binary.BigEndian.Uint16(answer[2:]) != mid {
				continue // of an earlier exchange
			}
			if answer[1] == 0x44 {
				return nil
			}
			if answer[1] != 0xa3 { // 5.03 asks to try again
				return fmt.Errorf("answered %d.%02d", answer[1]>>5, answer[1]&31)
			}
		}
	}
	return errors.New("never answered")
}

func timedOut(err error) bool {
	e, ok := errors.AsType[net.Error](err)
	return ok && e.Timeout()
}

// pauseFor is how long a device waits: these tests run in real time against a
// process of their own.
func pauseFor(d time.Duration) { <-time.After(d) }
